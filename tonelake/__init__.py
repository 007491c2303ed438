"""tonelake: an embedding store and similarity search for music audio.

    import tonelake

    lake = tonelake.open("mylake")
    lake.ingest_folder("~/Music")
    lake.embed()
    lake.similar("song.mp3", k=5)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tonelake.lake import Lake

__all__ = ["Lake", "open"]
__version__ = "0.1.0"


def open(path: str | Path = "lake", *, create: bool = True, older: bool = False, progress: bool = True) -> Lake:
    """Open the lake at a local path or an object-store URI, and make one if there is none, unless `create` is False.

    `older`: also open a lake of an older format, for `verify(repair=True)` to upgrade; otherwise such a lake is refused.
    `progress`: show a bar for long jobs if standard error is a terminal.  Raises LakeError if the lake cannot be opened.
    """
    from tonelake.lake import Lake
    from tonelake.render import progress_bar
    from tonelake.store import silent_progress

    return Lake(path, create=create, older=older, progress=progress_bar if progress else silent_progress)


def __getattr__(name: str) -> Any:
    """Import `Lake` on first use: `import tonelake` loads nothing heavy."""
    if name == "Lake":
        from tonelake.lake import Lake

        return Lake
    raise AttributeError(f"module 'tonelake' has no attribute {name!r}")
