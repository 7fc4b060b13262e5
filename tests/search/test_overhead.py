"""What the tool itself does per trial does not grow with the study: counted, not timed."""

import pytest
from instant import drive
from sqlalchemy import event

SPACE = """
backbone: resnet20
attention:
  type: [none, se, eca, fca, simam, cbam]
  placement: [stem, stage, in-block]
  reduction: [4, 8, 16, 32]
training: {epochs: 1, learning_rate: {low: 0.001, high: 1.0, log: true}}
"""
# Statements of a finished trial and the next assignment as SQLite itself counts them, each row and
# the beginning and end of each transaction too, but for the rows of proposals: one, and one more
# for each that was repeated.
MOST = 15


@pytest.fixture
def counted(opened, tmp_path):
    """A study, and the statements that each of its trials has taken."""
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)

    def run(trials, **flags):
        study = opened(str(path), trials=trials, **flags)
        statements = []

        def note(statement):
            if "INTO search_proposals" not in statement:
                statements.append(statement)

        def counting(connection, *_):
            connection.set_trace_callback(note)

        event.listen(study.store.engine, "checkout", counting)
        counts = []
        while True:
            before = len(statements)
            if not drive(study, stop_after=1):
                return study, counts
            counts.append(len(statements) - before)

    return run


@pytest.mark.parametrize("sampler", ["random", "nsga2", "evolution"])
def test_statements_per_trial_do_not_grow(counted, sampler):
    study, counts = counted(500, sampler=sampler)
    assert len(study.trials) == 500
    early, late = counts[40:60], counts[480:500]
    assert max(late) <= max(early)
    assert max(counts[1:]) <= MOST + 1  # once a generation its parents are kept


def test_what_the_sampler_keeps_on_the_study_does_not_grow(counted):
    study, _ = counted(300, sampler="nsga2")
    assert len(study.proposer.sampler_state()) <= 2
