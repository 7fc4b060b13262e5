"""The errors that a user's input can cause, and the wording they share.

The tree::

    ToolError                 wrong usage or input: one message, exit code 2, no traceback
    |-- BlockError            a block or one of its options is unknown or cannot be
    |   `-- SiteError         a block cannot be put at this site (channels or map size)
    |       `-- ForbiddenError  the rules of a space exclude a candidate
    |-- BackboneError         an unknown backbone, or one without the site asked for
    |-- SpaceError            a space file that cannot be read or does not hold together
    |-- CheckpointError       a file of weights that cannot be read or does not fit
    |-- DataError             a data set that is unknown or not there
    `-- StudyError            a study or database that cannot be opened, continued or shown
        `-- StorageFault      the database of a running study can no longer be written: exit code 1

Every message says where, what was given, what is allowed, and the cure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ToolError(Exception):
    """Wrong usage or input: its text is all that the user is shown."""


class BlockError(ToolError):
    """A block or one of its options is unknown, or has a value that it cannot take."""


class SiteError(BlockError):
    """A block cannot be put at this site."""


class ForbiddenError(SiteError):
    """The rules of a space exclude a candidate."""


class BackboneError(ToolError):
    """A backbone is unknown or has no such site."""


class SpaceError(ToolError):
    """A space file cannot be read or does not hold together."""


class CheckpointError(ToolError):
    """A file of weights cannot be read, or does not fit the network it is said to be."""


class DataError(ToolError):
    """A data set is unknown or not where it should be."""


class StudyError(ToolError):
    """A study or its database cannot be opened, continued or shown."""


class StorageFault(StudyError):  # noqa: N818 - a fault of the surroundings
    """The database of a running study can no longer be written."""


def suggestion(word: object, allowed: Iterable[str]) -> str:
    """Name the nearest allowed word: ``" Did you mean 'se'?"``, or nothing when none is near."""
    near = difflib.get_close_matches(str(word).lower(), list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def listing(allowed: Iterable[object]) -> str:
    """Join allowed words for a message, in the order given."""
    return ", ".join(str(word) for word in allowed)
