"""Where a backbone's trained weights come from, as spaces write it, and their identity.

Free of torch. Weights of timm's are known by their tag, those of a file by its content, never by
its path.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from blocks.errors import CheckpointError

TIMM, FILE = "timm:", "sha256:"
TAG = re.compile(r"[A-Za-z0-9_]{1,100}")


def is_file(given: str) -> bool:
    """Whether it is a path: it has a folder or an ending, which timm's tags have not."""
    return any(sign in given for sign in "./\\~")


def file_identity(path: str | Path) -> str:
    """The identity of a file's content.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            return FILE + hashlib.file_digest(file, "sha256").hexdigest()
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder; a checkpoint is a file") from None
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: there is no such file (paths are relative to the current folder,"
            f" {Path.cwd()}; of timm's weights the tag alone is given, such as a1_in1k)"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
