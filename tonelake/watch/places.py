"""Where a folder is: its file system, whether that reports changes, and whether it can be reached now.

inotify (and its relatives elsewhere) reports only changes that this machine makes: those that other machines make on a network
drive are found by looking.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")    # proc(5); Linux only
# File systems of networks and virtual machines.  `fuse.NAME` counts as one; fuseblk is a local disk with NTFS or exFAT.
REMOTE = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "drvfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs",
    "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
})
ESCAPE = re.compile(r"\\([0-7]{3})")     # of spaces, tabs, newlines and backslashes in mount points


def file_system_of(path: Path) -> str:
    """The type of the file system that a path is on, such as ext4 or nfs4; empty where that is not known."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
        place = path.resolve()
    except OSError:
        return ""
    return file_system_in(lines, place)


def file_system_in(lines: list[str], place: Path) -> str:
    r"""The type of the file system of an absolute path by lines of mountinfo; the last of several mounts at one place counts.

    >>> file_system_in([
    ...     "22 1 8:1 / / rw - ext4 /dev/sda1 rw", r"30 22 0:45 / /mnt/my\040nas rw shared:2 - cifs //nas/music rw",
    ... ], Path("/mnt/my nas/Jazz"))
    'cifs'
    """
    best, found = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        mount = Path(ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if place.is_relative_to(mount) and len(mount.parts) >= best:
            best, found = len(mount.parts), after.split(" ")[0]
    return found


def reports_changes(file_system: str) -> bool:
    """Whether changes that other machines make are reported; True for a file system that is not known.

    >>> [reports_changes(name) for name in ("ext4", "nfs4", "fuse.sshfs", "fuseblk", "")]
    [True, False, False, True, True]
    """
    return file_system not in REMOTE and not file_system.startswith("fuse.")


Identity = tuple[int, int]               # device and inode: another one is mounted, or replaced, at the same path


def reach(path: Path, *, folder: bool) -> Identity:
    """The identity of a folder or file.  Raises OSError if it cannot be reached or read, or if it is not a folder."""
    found = path.stat()
    if folder:
        with os.scandir(path) as entries:            # a stale handle of a network drive can answer to stat alone
            next(entries, None)
    return found.st_dev, found.st_ino
