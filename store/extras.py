"""Optional dependencies: a sentence with an install command where one is missing.

The command names the libraries themselves with the versions that tonelake's own metadata asks for, so it works for a clone and
for an installed wheel alike, whatever the package is called on an index.
"""

from __future__ import annotations

import importlib
import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from types import ModuleType

from tonelake.store.errors import InputError

EXTRA = re.compile(r"""\bextra\s*==\s*['"]([\w-]+)['"]""")


class MissingExtra(InputError):
    """A library of an extra that is not installed; names the command that installs it."""


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module of an optional dependency.

    `extra`: its name in tonelake's metadata; `purpose`: what needs it, for the message ("maps by UMAP").
    Raises MissingExtra if the library is not installed; errors inside an installed library pass through.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise missing_extra(extra, purpose) from error


def require_extra(module: str, extra: str, purpose: str) -> None:
    """Raise MissingExtra if a top-level module of an optional dependency is not installed, without importing it."""
    if find_spec(module) is None:
        raise missing_extra(extra, purpose)


def missing_extra(extra: str, purpose: str) -> MissingExtra:
    """The error to raise where a library of `extra` cannot be imported."""
    libraries = requirements_of(extra)
    names = " and ".join(re.split(r"[\s\[<>=!~;]", library)[0] for library in libraries) or f"the extra {extra!r}"
    verb = "are" if len(libraries) > 1 else "is"
    return MissingExtra(f"{purpose}: {names} {verb} not installed. {install_command(libraries)}")


def install_command(libraries: list[str]) -> str:
    """The sentence that tells how to install libraries into the running interpreter.

    >>> install_command(["umap-learn>=0.5.12"]).endswith('-m pip install "umap-learn>=0.5.12"')
    True
    """
    quoted = " ".join(f'"{library}"' for library in libraries)
    return f"Install with: {sys.executable or 'python'} -m pip install {quoted}"


def requirements_of(extra: str) -> list[str]:
    """Requirements of one extra as the installed metadata lists them, without their markers.

    >>> requirements_of("maps")[0].startswith("umap-learn")
    True
    """
    try:
        lines = requires("tonelake") or []
    except PackageNotFoundError:         # run from a source tree that nobody installed
        return []
    found = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        if (match := EXTRA.search(marker)) and match[1] == extra:
            found.append(requirement.strip())
    return found
