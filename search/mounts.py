"""The file system that a file lies on, and whether SQLite can be trusted with it."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "fuse.ceph"),
        *("fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs"),
        *("fuse.mfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "fuse.weka", "gfs2"),
        *("glusterfs", "gpfs"),
        *("lustre", "mfs", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3"),
        *("smbfs", "vboxsf", "wekafs"),
    )
)


def file_system(path: str | os.PathLike[str], mountinfo: str) -> tuple[str, str]:
    """The type and the mount point of the file system that a path lies on; empty if unknown.

    Args:
        path: Absolute, without links.
        mountinfo: As ``/proc/self/mountinfo`` has it.
    """
    target = Path(path)
    best, kind = "", ""
    for line in mountinfo.splitlines():
        fields, found, rest = line.partition(" - ")
        if not found or len(fields.split()) < 5:
            continue
        point = _plain(fields.split()[4])
        # Later lines are mounted over earlier ones at the same place.
        if target.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind, best


def _plain(text: str) -> str:
    """A path with the octal escapes of blanks and backslashes taken back."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def network_warning(file: Path, mountinfo: str | None = None) -> str:
    """What can go wrong with a SQLite file where it lies; empty where nothing is to be feared.

    Args:
        file: The database; it need not be there yet.
        mountinfo: As for ``file_system``; None: this system's.
    """
    mountinfo = _mounts() if mountinfo is None else mountinfo
    kind, point = file_system(os.path.realpath(file), mountinfo)
    if kind not in NETWORK:
        return ""
    return (
        f"{file} lies on a network file system ({kind} at {point}), where locks and the write-ahead"
        " log of SQLite are not to be trusted: a second machine that opens it can damage it, and a"
        " second run of the study may go unnoticed. Keep it on a local disk (--storage"
        " sqlite:////local/studies.db) and copy the file, or use PostgreSQL"
    )


def names_warning(file: Path, mountinfo: str | None = None) -> str:
    """What can go wrong with a SQLite file that has a second name; empty where it has none.

    Args:
        file: The database; it need not be there yet.
        mountinfo: As for ``file_system``; None: this system's.
    """
    path = Path(os.path.realpath(file))
    if not path.is_file():
        return ""
    links = path.stat().st_nlink
    how = f"has {links} names (hard links)" if links > 1 else ""
    mountinfo = _mounts() if mountinfo is None else mountinfo
    if not how and file_system(path, mountinfo)[1] == str(path):
        how = "is mounted without its folder"
    if not how:
        return ""
    return (
        f"{file} {how}: SQLite's log lies beside one name, and what opens the file by another does"
        " not see it and can damage the file. Open it by one name alone; mount its folder, or make"
        " the file one of its own (cp FILE NEW; mv NEW FILE)"
    )


def _mounts() -> str:
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
