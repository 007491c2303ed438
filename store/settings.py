"""Settings of a run: a frozen dataclass, how it stands in YAML, and the digest that tells one experiment from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Self, get_type_hints

from tonelake.store.errors import InputError


class Settings:
    """What a frozen dataclass of settings inherits."""

    learned: ClassVar[str]               # the one setting that has no default: which labels are learned

    def as_dict(self) -> dict[str, Any]:
        """For YAML: tuples as lists."""
        values = asdict(self)            # type: ignore[call-overload]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def digest(self, data: bytes) -> str:
        """What tells one experiment from another: the settings, and what they run on (clips, targets, the space)."""
        text = "\n".join(f"{key}={value!r}" for key, value in sorted(self.as_dict().items()))
        return hashlib.blake2b(text.encode() + b"\0" + data, digest_size=16).hexdigest()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Self:
        """`where` they were read.  Raises InputError for a setting that does not exist or has another type."""
        known = [field.name for field in fields(cls)]        # type: ignore[arg-type]
        strange = sorted(str(key) for key in values if key not in known)
        if strange:
            raise InputError(f"{where}: no setting {', '.join(map(repr, strange))}; there are {', '.join(known)}")
        if cls.learned not in values:
            raise InputError(f"{where}: names no {cls.learned} to learn")
        kinds = get_type_hints(cls)
        try:
            return cls(**{key: fitted(key, value, str(kinds[key])) for key, value in values.items()})
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{where}: {error}") from error

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Settings from any YAML file, as that of a run.  Raises InputError."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as YAML: {error}") from error
        return cls.from_dict(parsed(text, str(path))[0], str(path))


def parsed(text: str, where: str) -> tuple[dict[str, Any], str | None]:
    """The settings that a YAML text holds, and the digest beside them, if there is one.  Raises InputError."""
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{where} holds no settings: each line is one, as `epochs: 20`")
    digest = values.pop("digest", None)
    return values, None if digest is None else str(digest)


def to_plain(settings: Settings, digest: str) -> str:
    """YAML that `parsed` reads."""
    import yaml

    values = {**settings.as_dict(), "digest": digest}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None)


def fitted(key: str, value: Any, kind: str) -> Any:
    """A value as read from YAML, of the type that the setting has (YAML reads 1e-3 as text).

    >>> fitted("lora_rate", "1e-3", "<class 'float'>"), fitted("targets", ["q_proj"], "tuple[str, ...]")
    (0.001, ('q_proj',))
    """
    if value is None:
        if "None" not in kind:
            raise InputError(f"{key} is empty: give it a value, or leave it out")
        return None
    if "tuple" in kind:
        parts = value if isinstance(value, list | tuple) else [value]
        return tuple(float(part) if "float" in kind else str(part) for part in parts)
    if "bool" in kind:
        if not isinstance(value, bool):
            raise InputError(f"{key} {value!r}: true or false")
        return value
    if "int" in kind:
        if isinstance(value, bool) or int(value) != value:
            raise InputError(f"{key} {value!r} is not a whole number")
        return int(value)
    return float(value) if "float" in kind else str(value)
