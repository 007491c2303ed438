"""Find the music folder of a library of beets in beets' configuration: library.db -> the folder that its paths are relative to.

A configuration is `config.yaml` beside the library, in $BEETSDIR, or in the user's folder for it.  Its `library` says which
library it belongs to, `directory` names the music folder; relative values start at the configuration's own folder, and files
that `include` lists win over it (https://beets.readthedocs.io/en/stable/reference/config.html).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from tonelake.store import InputError

CONFIG = "config.yaml"
# beets' own defaults
LIBRARY, MUSIC = "library.db", "~/Music"


def beets_music_folder(library: Path) -> Path | None:
    """The music folder of a library by the configuration that belongs to it; None without one.

    Raises InputError for a configuration that cannot be read.
    """
    for folder in config_folders(library):
        values = read_config(folder / CONFIG)
        if values is None:
            continue
        own = folder / Path(_text(values, "library") or LIBRARY).expanduser()
        if is_same_file(own, library):
            return folder / Path(_text(values, "directory") or MUSIC).expanduser()
    return None


def config_folders(library: Path) -> list[Path]:
    """Folders in which a configuration may be, the likeliest first."""
    home = Path.home()
    named = [Path(value).expanduser() for name in ("BEETSDIR",) if (value := os.environ.get(name))]
    users = [Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config"), home / ".config"]
    users += [home / "Library" / "Application Support", home / "AppData" / "Roaming"]
    return list(dict.fromkeys([library.absolute().parent, *named, *(folder / "beets" for folder in users)]))


def read_config(file: Path) -> dict[str, Any] | None:
    """The values of a configuration and of the files that it includes; None if there is none."""
    values = _read_yaml(file)
    included = (values or {}).get("include")
    for name in included if isinstance(included, list) else [included] if included else []:
        values = (values or {}) | (_read_yaml(file.parent / Path(str(name)).expanduser()) or {})
    return values


def _read_yaml(file: Path) -> dict[str, Any] | None:
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeError) as error:
        raise unusable(file, error) from error
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise unusable(file, str(error).splitlines()[0]) from error
    return found if isinstance(found, dict) else {}


def unusable(file: Path, reason: object) -> InputError:
    """The error for a configuration that cannot be read."""
    return InputError(f"{file}: cannot be read as beets' configuration ({reason}). Give beets' music folder with --music")


def is_same_file(first: Path, second: Path) -> bool:
    """Whether two paths name one existing file."""
    try:
        return first.samefile(second)
    except OSError:
        return False


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""
