"""Recognise symbolic links that were unpacked as text files.

Git without `core.symlinks`, and unzip on file systems without links, write a link as a small file that holds only the path of
its target.  As a table such a file has no columns, and as audio it does not decode.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

MAX_LINK_BYTES = 1024
MAX_HOPS = 8                             # links to links; a loop ends here


def link_text(path: Path) -> str | None:
    """The target that a link unpacked as text names, with forward slashes; None if the file is anything else.

    The file holds one line, a path with the same suffix as its own name, such as `raw_30s.tsv` in `autotagging.tsv`.
    """
    try:
        if not 0 < path.stat().st_size <= MAX_LINK_BYTES or not path.is_file():
            return None
        lines = path.read_bytes().decode("utf-8").splitlines()
    except (OSError, ValueError):
        return None
    text = lines[0].strip().replace("\\", "/") if len(lines) == 1 else ""
    suffix = path.suffix.lower()
    if not suffix or not text.isprintable() or PurePosixPath(text).suffix.lower() != suffix:
        return None
    return text


def follow_text_link(path: Path, folder: Path) -> Path:
    """The file that a link unpacked as text leads to; `path` itself if it is no such link or leads out of `folder`."""
    current = path
    for _ in range(MAX_HOPS):
        target = link_text(current)
        if target is None:
            return current
        current = current.parent / target
        if not current.is_file() or not current.resolve().is_relative_to(folder.resolve()):
            return path
    return path
