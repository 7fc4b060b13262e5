"""Whether a study that is stored as running is run: a process that was killed cannot say so."""

from __future__ import annotations

import os
import platform

from sqlalchemy import Engine, inspect

from search import tables
from search.leases import is_shareable, living_parents
from search.outcome import RUNNING
from search.records import StudyRecord

CUT_OFF = "cut off"


def status_of(engine: Engine, study: StudyRecord) -> str:
    """A study's status; "cut off" where it was run by processes that are gone, as far as is known.

    Args:
        engine: Of its database.
        study: As it is stored.
    """
    return CUT_OFF if study.status == RUNNING and _is_abandoned(engine, study) else study.status


def _is_abandoned(engine: Engine, study: StudyRecord) -> bool:
    if is_shareable(engine):
        known = inspect(engine).has_table(tables.leases.name)
        return known and not living_parents(engine, study.id)
    return study.owner.get("host") == platform.node() and not _is_there(study.owner.get("pid"))


def _is_there(process: object) -> bool:
    """Whether there is a process of this number; another one may have it by now."""
    if not isinstance(process, int):
        return True  # nobody knows
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
