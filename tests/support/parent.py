"""A parent of a shared study whose trials take a moment and train nothing.

Run as a script in a folder of its own: ``python parent.py NAME SPACE URL TRIALS PAUSE [FLAGS]``,
with further flags of ``run_study`` as JSON. It says ``took N``, then ``ended N`` or ``lost N``.
"""

import json
import sys
import time

from instant import PROVENANCE, outcome_of

from search import workers
from search.leases import LeaseLostError
from search.study import run_study


def instantly(name, pause):
    """A driver that evaluates one trial after another."""

    def drive(study, watch):
        while True:
            assignment = study.next_assignment()
            if assignment is None:
                if not study.sharing.elsewhere:
                    return
                time.sleep(0.02)
                continue
            number = assignment.trial
            print(f"took {number}", flush=True)
            time.sleep(pause)
            try:
                study.on_finish(
                    number, outcome_of(study.trials[number]), {**PROVENANCE, "device": name}
                )
                print(f"ended {number}", flush=True)
            except LeaseLostError as error:
                print(f"lost {number}: {error}", flush=True)

    return drive


if __name__ == "__main__":
    name, space, url, trials, pause = sys.argv[1:6]
    flags = json.loads(sys.argv[6]) if len(sys.argv) > 6 else {}
    workers.run_locally = instantly(name, float(pause))
    result = run_study(space, storage=url, trials=int(trials), workers=1, **flags)
    print(json.dumps({"trials": len(result.trials), "note": result.note, "bad": result.warning}))
