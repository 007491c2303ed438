"""tonelake: an embedding store and similarity search for music audio.

    import tonelake

    lake = tonelake.open("mylake")
    lake.ingest_folder("~/Music")
    lake.embed()
    lake.similar("song.mp3", k=5)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tonelake.api import Tonelake

__version__ = "0.1.0"


def open(path: str | Path = "lake", *, create: bool = True, older: bool = False, progress: bool = True) -> Tonelake:
    """Open the lake at a local path or an object-store URI; it is made where there is none, unless `create` is False.

    `older`: also open one of an older format, for `verify(repair=True)` to upgrade; without it such a lake is refused.
    `progress`: show a bar for long work where standard error is a terminal.
    """
    from tonelake.api import Tonelake

    return Tonelake(path, create=create, older=older, progress=progress)
