"""Running a study: opening or continuing it, holding it, driving it, and what it comes to."""

from __future__ import annotations

import os
import platform
import threading
from typing import Any

from blocks.errors import StudyError, listing
from search.concurrency import settled
from search.database import checkpoint, explained, file_of, is_sqlite, open_for_writing, shown
from search.determinism import check_deterministic
from search.engine import Study, StudyResult
from search.faults import ending_cleanly
from search.holding import NEW_NAME, held
from search.interruption import Interrupted
from search.kept_split import keep_split
from search.leases import is_shareable
from search.mirror import Mirror
from search.mounts import names_warning, network_warning
from search.outcome import RUNNING
from search.plan import StudyPlan, make_plan
from search.reading import find_study, read_trials
from search.records import StudyRecord, now
from search.sharing import Alone, Shared, sharing_of
from search.store import Store
from search.watch import Silent, Watch
from spaces.space import Space, differences


def open_study(
    plan: StudyPlan, store: Store, sharing: Alone | Shared | None = None
) -> tuple[Study, bool]:
    """Make a study, or take up a stored one where it stopped.

    Returns:
        The study, and whether its space was changed (``--extend``).

    Raises:
        StudyError: The stored study has another space, data, epochs or seed.
    """
    record = find_study(store.engine, plan.study)
    extended = False
    if record is None:
        store.add_study(plan.study, plan.space, identity=plan.identity, settings=plan.settings)
    else:
        changes = changes_of(record, plan)
        if changes and not plan.extend:
            raise StudyError(_refusal(plan, changes))
        if plan.retry_failed:
            what = "failed trials stay as they are"
            _refuse_while_others_run(plan, record, sharing, what, "--retry-failed")
        if changes:
            _refuse_while_others_run(plan, record, sharing, "its space stays as it is", "--extend")
            store.change_space(record.id, plan.space, plan.identity)
            extended = True
    record = find_study(store.engine, plan.study)
    assert record is not None  # it was there, or has just been made
    if plan.place.kept is not None:
        with store.transaction() as connection:
            keep_split(connection, plan.place.kept, plan.data.sizes)
    owner = {"host": platform.node(), "pid": os.getpid(), "since": now()}
    store.update_study(record.id, status=RUNNING, note="", owner=owner, settings=plan.settings)
    return Study(plan, store, record, sharing), extended


def changes_of(record: StudyRecord, plan: StudyPlan) -> list[str]:
    """In what a stored study differs from the plan, beside what may change."""
    changes = differences(record.space_content, plan.space.content)
    return changes + differences(record.identity, plan.identity)


def _refuse_while_others_run(
    plan: StudyPlan, record: StudyRecord, sharing: Alone | Shared | None, what: str, flag: str
) -> None:
    others = sharing.others(record.id) if sharing is not None else []
    if others:
        raise StudyError(
            f"study {plan.study!r} is being run by {listing(others)}: {what} until they have"
            f" ended; leave {flag} out, or wait for them"
        )


def _refusal(plan: StudyPlan, changes: list[str]) -> str:
    lines = "\n".join(f"  {line}" for line in changes)
    what = "1 line differs" if len(changes) == 1 else f"{len(changes)} lines differ"
    return (
        f"{shown(plan.storage)} holds study {plan.study!r} with another space or setting ({what};"
        f" - stored, + given):\n{lines}\n  Give the stored values, allow the change (--extend), or"
        f" name a new study (--study NAME)"
    )


def execute(plan: StudyPlan, watch: Watch | None = None) -> StudyResult:
    """Run a study, or go on with it, on this machine.

    Args:
        plan: What to do.
        watch: Who wants to know how it goes.

    Returns:
        What it has come to.

    Raises:
        ToolError: The study cannot be opened or continued.
        Interrupted: It was stopped by a signal; what had finished is kept.
    """
    from search.workers import run_locally

    watch = watch or Silent()
    check_deterministic(plan)
    if is_sqlite(plan.storage):
        file = file_of(plan.storage)
        for warning in filter(None, (network_warning(file), names_warning(file))):
            watch.said(warning)
    engine = open_for_writing(plan.storage)
    store = Store(engine)
    try:
        with held(plan.artefacts, plan.study, store, cure=_cure(store)):
            sharing = sharing_of(store, plan.study)
            with explained(plan.storage), sharing.opening():
                study, extended = open_study(plan, store, sharing)
                sharing.enter(study)
            mirror = _mirror(study)
            mirror.start(rebuild=extended or bool(study.retried))
            study.changed = mirror.changed
            status, note = "interrupted", ""
            with ending_cleanly(store.outlast):
                try:
                    if not study.is_finished:
                        study.plan = settled(study.plan, study.left, watch.preparing)
                        study.meter.devices = study.plan.devices_of_attempt
                    store.outlast.arm(watch.said, lambda: False)
                    store.outlast(lambda: watch.began(study))
                    with ending_cleanly(store.outlast):
                        run_locally(study, watch)
                    status, note = study.ending()
                finally:
                    watch.ended()
                    _close(study, mirror, status=status, note=note)
                return store.outlast(lambda: study.result(warning=mirror.problem))
    finally:
        if not store.outlast.given_up:
            checkpoint(engine)
        engine.dispose()


def _close(study: Study, mirror: Mirror, *, status: str, note: str) -> None:
    """Leave the database as the study stands; one that cannot be written is left as it is."""
    writable = not study.store.outlast.given_up
    try:
        if writable:
            study.interrupt()
            study.keeper.close()
            study.meter.beat(at_once=True)
    finally:
        mirror.close()
        study.sharing.fall_silent()
    if writable:
        study.sharing.leave(status, note)


def _cure(store: Store) -> str:
    if is_shareable(store.engine):
        return ", stop it, or start another parent of it in a folder of its own"
    return NEW_NAME


def _mirror(study: Study) -> Mirror:
    """Optuna's tables of a study; where parents share it, as the database has its trials."""
    store, shared = study.store, study.sharing.is_shared
    return Mirror(
        study.plan.storage,
        study.plan.study,
        study.objectives,
        caps=study.above_caps,
        distributions=study.mirrored_distributions(),
        lock=threading.RLock() if shared else store.lock,
        trials=lambda: (
            read_trials(store.snapshot, study.id) if shared else list(study.trials.values())
        ),
        turn=study.sharing,
    )


def run_study(
    space: str | os.PathLike[str] | Space, watch: Watch | None = None, **flags: Any
) -> StudyResult:
    """Run a study from Python.

    Args:
        space: A space file, the name of a shipped space, or a space (spaces.space.make_space).
        watch: Who wants to know how it goes.
        **flags: As the command line's: study, storage, trials, seeds, epochs, data, data_dir,
            download, sampler, max_seeds, enqueue, workers, device, gpus, processes, deterministic,
            seed, overrides, includes, extend, time_limit, device_hours, patience, retry_failed.

    Returns:
        Trials, front, and why it ended.

    Raises:
        ToolError: A file or flag is wrong, or the study cannot be opened or continued.
        Interrupted: It was stopped by a signal; what had finished is kept.
    """
    return execute(make_plan(space, **flags), watch)


__all__ = ["Interrupted", "Study", "StudyResult", "Watch", "execute", "open_study", "run_study"]
