"""Methods that are functions of other modules, imported when one of them is first used.

    class Lake:
        similar = LateModules("tonelake").index.similar          # imports tonelake.index with the first lake.similar(…)

A class with a hundred such methods would otherwise import every module of the program, a third of a short command's time.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class LateModules:
    """The modules of a package by attribute, none of them imported."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, module: str) -> LateModule:
        return LateModule(f"{self._package}.{module}")


class LateModule:
    """The functions of a module by attribute, as methods; the module is not imported."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, function: str) -> LateMethod:
        return LateMethod(self._module, function)


class LateMethod:
    """A method that puts the function itself in its place when it is first looked up."""

    def __init__(self, module: str, function: str) -> None:
        self._module, self._function = module, function

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: Any, owner: type) -> Any:
        function = getattr(import_module(self._module), self._function)
        setattr(self._owner, self._name, function)
        return function.__get__(instance, owner)
