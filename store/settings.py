"""Settings of runs and of embedding: frozen, strict pydantic dataclasses, their YAML, and the digest of an experiment.

A class of settings is declared with `frozen_settings`.  Each field has a type, a default, a range or a `Literal` of its
choices, and a description, which is also the help text of its command-line option (`setting_fields`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, dataclass_transform, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.fields import FieldInfo

from tonelake.store.errors import InputError

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Texts = Annotated[tuple[str, ...], Field(min_length=1, strict=False)]        # not strict: a list is accepted

Kind = type[bool] | type[int] | type[float] | type[str]
NOUNS: dict[Kind, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"), float: ("a number", "numbers"), str: ("text", "texts"),
    bool: ("true or false", "values true or false"),
}
SettingsClass = TypeVar("SettingsClass", bound="type[Settings]")


class Settings:
    """Base class of every class of settings."""

    def as_dict(self) -> dict[str, Any]:
        """The values as YAML holds them: tuples become lists."""
        values = asdict(self)            # type: ignore[call-overload]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def identity(self) -> dict[str, Any]:
        """The values that `digest` covers.  A subclass can leave out a later setting at its default, so that the digests of
        earlier releases stay valid."""
        return self.as_dict()

    def digest(self, data: bytes) -> str:
        """Identity of an experiment: a hash of the settings and of the data it runs on (clips, targets, the space)."""
        text = "\n".join(f"{key}={value!r}" for key, value in sorted(self.identity().items()))
        return hashlib.blake2b(text.encode() + b"\0" + data, digest_size=16).hexdigest()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Settings from values as YAML gives them: one value for a list of one, 1e-3 (text in YAML 1.1) for a number.

        `where` names the source in errors.  Raises InputError for an unknown setting and for a value that the setting refuses.
        """
        known = {field.name: field for field in setting_fields(cls)}
        given = {str(key): value for key, value in values.items()}
        try:
            return cls(**{key: from_yaml(value, known[key]) if key in known else value for key, value in given.items()})
        except InputError as error:
            if not where:
                raise
            raise InputError(f"{where}, {error}") from error

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Settings from a YAML file, such as a run's config.yaml.  Raises InputError."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as YAML ({error})") from error
        return cls.from_dict(parse_settings(text, str(path))[0], str(path))


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def frozen_settings(cls: SettingsClass) -> SettingsClass:
    """Make a subclass of Settings a frozen, strict pydantic dataclass whose constructor raises InputError.

    Strict: True is not an integer and "3" is not 3; an integer is accepted where a float is expected and becomes one.
    Unknown settings are refused.

    >>> @frozen_settings
    ... class Training(Settings):
    ...     epochs: Count = Field(default=50, description="Maximum number of epochs.")
    >>> Training(epochs=0)
    Traceback (most recent call last):
        ...
    tonelake.store.errors.InputError: setting 'epochs': 0 is out of range. Give a whole number of 1 or more
    """
    made = pydantic_dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))(cls)
    construct = made.__init__

    @wraps(construct)
    def __init__(self: Settings, *args: Any, **values: Any) -> None:
        try:
            construct(self, *args, **values)
        except ValidationError as error:
            raise InputError(explain(cls, error)) from None

    made.__init__ = __init__             # type: ignore[method-assign,assignment]
    return made                          # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class SettingField:
    """One setting as a command-line option or a message needs it."""

    name: str
    kind: Kind                           # of the value, or of each value where there are several
    several: bool                        # a tuple of values
    optional: bool                       # None is allowed
    required: bool
    default: Any                         # None where the setting is required
    choices: tuple[str, ...]             # empty where the range or the text is free
    limits: str                          # " of 1 or more", " from 0 to below 1"; empty where there are none
    description: str

    @property
    def remedy(self) -> str:
        """A sentence that says what to give for this setting.

        >>> rates = SettingField(
        ...     name="rates", kind=float, several=True, optional=False, required=False, default=(0.1,), choices=(),
        ...     limits=" above 0", description="Learning rates.",
        ... )
        >>> rates.remedy
        'Give one or more numbers above 0'
        """
        if self.choices:
            return f"Choose {listed(self.choices)}"
        one, several = NOUNS[self.kind]
        return f"Give {'one or more ' + several if self.several else one}{self.limits}"


def setting_fields(cls: type[Settings]) -> list[SettingField]:
    """The settings of a class in their order: types, defaults, choices, ranges and help texts."""
    return [setting_field(name, info) for name, info in cls.__pydantic_fields__.items()]         # type: ignore[attr-defined]


def setting_field(name: str, info: FieldInfo) -> SettingField:
    hint: Any = info.annotation
    metadata: list[Any] = list(info.metadata)
    optional = several = False
    while True:                          # unwrap Annotated, ... | None and tuple in any order of nesting
        origin, parts = get_origin(hint), get_args(hint)
        if origin is Annotated:
            hint, metadata = parts[0], [*metadata, *parts[1:]]
        elif origin in (Union, UnionType):
            optional, hint = True, next(part for part in parts if part is not type(None))
        elif origin is tuple:
            several, hint = True, parts[0]
        else:
            break
    choices = tuple(parts) if origin is Literal else ()
    return SettingField(
        name=name, kind=str if choices else hint, several=several, optional=optional, required=info.is_required(),
        default=None if info.is_required() else info.default, choices=choices, limits=limits_of(metadata),
        description=info.description or "",
    )


def limits_of(metadata: Sequence[Any]) -> str:
    """The range that annotations allow, in words.

    >>> limits_of([Field(ge=1)]), limits_of([Field(ge=0, lt=1)]), limits_of([Field(gt=0)])
    (' of 1 or more', ' from 0 to below 1', ' above 0')
    """
    parts = [part for found in metadata for part in (found.metadata if isinstance(found, FieldInfo) else [found])]
    bounds = {key: getattr(part, key) for part in parts for key in ("ge", "gt", "le", "lt") if hasattr(part, key)}
    low = f"from {bounds['ge']:g}" if "ge" in bounds else f"above {bounds['gt']:g}" if "gt" in bounds else ""
    high = f"to {bounds['le']:g}" if "le" in bounds else f"to below {bounds['lt']:g}" if "lt" in bounds else ""
    if low and high:
        return f" {low} {high}" if "ge" in bounds else f" {low} and {high.removeprefix('to ')}"
    return f" of {bounds['ge']:g} or more" if "ge" in bounds else f" {low or high.removeprefix('to ')}".rstrip()


def explain(cls: type[Settings], error: ValidationError) -> str:
    """The first problem that pydantic found, as `<thing>: <problem>. <remedy>`."""
    found = error.errors()[0]
    if found["type"] == "value_error":                       # raised by a check of ours, which words its own message
        return str(found["ctx"]["error"])
    fields = {field.name: field for field in setting_fields(cls)}
    name, value = str(found["loc"][0]) if found["loc"] else "", found["input"]
    if name not in fields:
        near = get_close_matches(name, fields, 1)
        guess = f"Did you mean {near[0]!r}? " if near else ""
        return f"setting {name!r}: does not exist. {guess}The settings are {', '.join(fields)}"
    field = fields[name]
    if found["type"] == "missing":
        return f"setting {name!r}: is required. {field.remedy}: {field.description}"
    if value is None or found["type"] == "too_short":
        return f"setting {name!r}: is empty. {field.remedy}, or leave the setting out"
    problem = {
        "literal_error": "is not a choice", "int_type": "is not a whole number", "float_type": "is not a number",
        "bool_type": "is neither true nor false", "string_type": "is not text", "tuple_type": "is not a list",
        "finite_number": "is not a finite number",
    }.get(found["type"], "is out of range")
    return f"setting {name!r}: {value!r} {problem}. {field.remedy}"


def listed(choices: Sequence[str]) -> str:
    """
    >>> listed(("a",)), listed(("a", "b", "c"))
    ('a', 'a, b or c')
    """
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)


def from_yaml(value: Any, field: SettingField) -> Any:
    """A value as YAML gives it, converted to the setting's type where that loses nothing; pydantic judges the result."""
    if field.several and value is not None:
        parts = value if isinstance(value, list | tuple) else [value]
        return tuple(one_from_yaml(part, field.kind) for part in parts)
    return one_from_yaml(value, field.kind)


def one_from_yaml(value: Any, kind: Kind) -> Any:
    """
    >>> one_from_yaml("1e-3", float), one_from_yaml(20.0, int), one_from_yaml(7, str), one_from_yaml("3", int)
    (0.001, 20, '7', '3')
    """
    if kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is str and value is not None and not isinstance(value, bool | list | dict | tuple):
        return str(value)
    return value


def parse_settings(text: str, where: str) -> tuple[dict[str, Any], str | None]:
    """The settings in a YAML text, and the digest stored with them, if there is one.  Raises InputError."""
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: cannot be read as YAML ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: holds no settings. Write one a line, as in `epochs: 20`")
    digest = values.pop("digest", None)
    return values, None if digest is None else str(digest)


def settings_to_yaml(settings: Settings, digest: str) -> str:
    """Settings and digest as YAML; `parse_settings` reads it."""
    import yaml

    values = {**settings.as_dict(), "digest": digest}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None)
