"""tonelake: an embedding store and similarity search for music audio.

    import tonelake

    lake = tonelake.open("mylake")
    lake.ingest_folder("~/Music")
    lake.embed()
    lake.similar("song.mp3", k=5)
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tonelake.api import Tonelake

__version__ = "0.1.0"
PACKAGES = ("store", "ingest", "embed", "index", "probes", "finetune", "ui")
HOME = Path(__file__).resolve().parent.parent

# The packages have plain names: a user's own embed.py in the working directory would hide ours, and fail oddly later.
for name in PACKAGES:
    found = find_spec(name)
    origin = found.origin if found is not None else None
    if origin is None or Path(origin).resolve() != HOME / name / "__init__.py":
        raise ImportError(
            f"{origin or 'another folder of that name'} hides tonelake's {name!r} package: rename it, or run from "
            "another folder"
        )


def open(path: str | Path = "lake", *, create: bool = True, older: bool = False, progress: bool = True) -> Tonelake:
    """The lake at a local path or an object-store URI; made where there is none, unless `create` is False.

    `older`: also one of an older format, for `verify(repair=True)` to bring up; without it such a lake is refused.
    `progress`: show a bar for long work where standard error is a terminal.
    """
    from tonelake.api import Tonelake

    return Tonelake(path, create=create, older=older, progress=progress)
