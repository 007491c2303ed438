"""A space: one way of embedding.  Vectors of two spaces never mix; the fingerprint tells spaces apart.

The identity consists of content and resolved settings: the encoder (a digest of its weights, not its path), windows and
pooling, and the precision of computation and storage.  No value in it is `auto` or None.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from tonelake.store.blobs import Blobs
from tonelake.store.errors import InputError, LakeError, SpaceMismatch, SpaceNotFound
from tonelake.store.format import default_space_of, write_default_space
from tonelake.store.hold import look_once
from tonelake.store.type_checks import check_types

FORMAT_VERSION = 1
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
STATS = ("mean", "max")
PROJECTED = "projection"                  # the location of a space computed from another one (`store.projection`)
HYBRID = "hybrid"                         # begins the location of a space joined from others (`store.hybrid`)
COMPUTED_THEN = "spectral"                # the one computed encoder of releases whose spaces did not record `learned`

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Space:
    """One way of embedding.  The first block, except the name, is its identity; the rest is needed to extend it."""

    name: str
    revision: str                         # digest of the weights and configuration, or name and version of our own code
    sample_rate: int                      # Hz
    layers: tuple[str, ...]               # names, in order: "0" … "12", or "mfcc", "chroma", …
    dims: tuple[int, ...]                 # width of each layer
    window_s: float
    hop_s: float
    precision: str                        # of the forward pass: float32, bfloat16 or float16
    pooling: str = "mean+max"
    adapter: str = ""                     # digest of a LoRA adapter; empty for none
    dtype: str = "float16"                # of the stored vectors
    format: int = FORMAT_VERSION

    encoder: str = ""                     # its name for users: m-a-p/MERT-v1-95M, spectral, a folder's name
    location: str = ""                    # what the encoder was loaded from: a hub id, a folder, a built-in name
    adapter_location: str = ""            # … and its adapter: a folder, or a path inside the lake
    device: str = "cpu"                   # where it was first embedded
    precision_reason: str = ""            # why `auto` chose this precision
    default_layer: int = 0                # the layer used when none is named
    learned: bool = True                  # False for descriptors that are computed, not learned
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.layers) != len(self.dims) or not self.layers:
            raise InputError(f"space {self.name!r}: {len(self.layers)} layer names, {len(self.dims)} widths. Give one each")
        if not 0 <= self.default_layer < len(self.layers):
            raise InputError(
                f"space {self.name!r}: default_layer is {self.default_layer}. Choose 0 to {len(self.layers) - 1}, a number of "
                f"its {len(self.layers)} layers"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that decide the vectors."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in DESCRIPTION}

    @property
    def fingerprint(self) -> str:
        """Hash of the identity, 32 hex digits."""
        text = json.dumps(self.identity, sort_keys=True, ensure_ascii=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def table_name(self) -> str:
        return f"emb_{self.name}"

    def layer_index(self, layer: int | str | None) -> int:
        """The number of a layer given by number or name; None means the default.

        Negative numbers count from the end: -1 is the last layer, -2 the one before it; -0 is 0, the first.  A name is tried
        before a number.  Raises InputError for an unknown layer.
        """
        if layer is None:
            return self.default_layer
        if str(layer) in self.layers:
            return self.layers.index(str(layer))
        count = len(self.layers)
        try:
            number = int(layer)
        except ValueError:
            number = count
        if not -count <= number < count:
            shown = ", ".join(f"{i} ({n})" if str(i) != n else n for i, n in enumerate(self.layers))
            raise InputError(f"space {self.name!r}: has no layer {layer!r}. Choose one of {shown}; -1 is the last")
        return number % count

    def column(self, layer: int, stat: str = "mean") -> str:
        """Name of the column that holds a layer, such as `mean_07`."""
        if stat not in STATS:
            raise InputError(f"statistic {stat!r}: unknown. Choose one of {', '.join(STATS)}")
        return f"{stat}_{layer:02d}"

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"fingerprint": self.fingerprint}, indent=2)

    @classmethod
    def from_json(cls, text: str, where: str) -> Space:
        """Read a space's file; `where` names it in errors.

        Raises LakeError if it is damaged, SpaceMismatch if its settings were edited.
        """
        try:
            values = json.loads(text)
            kept = str(values.pop("fingerprint"))
            values["layers"], values["dims"] = tuple(values["layers"]), tuple(values["dims"])
            values.setdefault("learned", values.get("location") != COMPUTED_THEN)
            check_types(cls, values)
            space = cls(**values)
        except (AttributeError, ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{where}: is not a space description that this version reads ({error}). Restore it from a copy"
            ) from error
        if kept != space.fingerprint:
            raise SpaceMismatch(
                f"{where}: its settings give fingerprint {space.fingerprint[:12]} instead of {kept[:12]}, so it was edited "
                "after vectors were stored. Restore the original, or embed into a new space"
            )
        return space


# Fields that are not part of the identity.
DESCRIPTION = {
    "name", "encoder", "location", "adapter_location", "device", "precision_reason", "default_layer", "learned", "created_at",
}


def is_hybrid(space: Space) -> bool:
    """Whether a space's vectors are those of other spaces, side by side."""
    return space.location.startswith(f"{HYBRID}:") and "/" in space.location     # a class location, module:Class, has none


def is_derived(space: Space) -> bool:
    """Whether a space's vectors are computed from those of other spaces, not from audio: a projection or a hybrid."""
    return space.location == PROJECTED or is_hybrid(space)


def check_name(name: str) -> None:
    """Raise InputError unless `name` is valid for a space.

    >>> check_name("mert-v1-95m")
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"space {name!r}: not a valid name. Use 1 to 64 lower-case letters, digits, '-' and '_', beginning with a "
            "letter or digit, for example 'mert-v1-95m'"
        )


class Spaces:
    """The spaces of a lake: a JSON file each, written once."""

    def __init__(self, files: Blobs, lake_files: Blobs) -> None:
        """`files`: the folder of the spaces; `lake_files`: that of `lake.json`, which names the default space."""
        self._files, self._lake_files = files, lake_files
        self._reported: set[str] = set()         # default spaces that a log line has named

    def all(self) -> list[Space]:
        """All spaces, in the order they were made."""
        found = [self._read(name) for name in self._files.names()]
        return sorted((s for s in found if s is not None), key=lambda s: (s.created_at, s.name))

    def get(self, name: str | None = None) -> Space:
        """The space of that name; without a name the default space (`default`).

        Logs which one it is, once, if the lake has several.  Raises SpaceNotFound if there is none.
        """
        return look_once(("space", self._files.uri, name), lambda: self._get(name))

    def _get(self, name: str | None) -> Space:
        if name is not None:
            check_name(name)
            space = self._read(f"{name}.json")
            if space is not None:
                return space
        spaces = self.all()
        if not spaces:
            raise SpaceNotFound("space: nothing is embedded in this lake yet. Run `tonelake embed`")
        if name is not None:
            raise SpaceNotFound(f"no space {name!r} in this lake. Choose one of {', '.join(s.name for s in spaces)}")
        chosen, reason = self.default(spaces)
        if sum(not is_derived(space) for space in spaces) > 1 and chosen.name not in self._reported:
            self._reported.add(chosen.name)
            log.info("space %s, %s; choose another with --space: %s", chosen.name, reason, ", ".join(s.name for s in spaces))
        return chosen

    def default(self, spaces: Sequence[Space]) -> tuple[Space, str]:
        """The space, of one or more, that is used where none is named, and why it is this one.

        It is the one that `set_default` set; else the newest whose encoder was learned; else the newest.  A projection or a
        hybrid of other spaces is not taken unless it was set.
        """
        wanted = default_space_of(self._lake_files)
        for space in spaces:
            if space.name == wanted:
                return space, "the lake's default"
        embedded = [space for space in spaces if not is_derived(space)]
        learned = [space for space in embedded if space.learned]
        if learned:
            return learned[-1], "the newest learned one"
        return (embedded or list(spaces))[-1], "the newest"

    def set_default(self, name: str | None) -> Space | None:
        """Make a space the default one; with None, leave the choice to `default` again.  Raises SpaceNotFound."""
        space = None if name is None else self.get(name)
        write_default_space(self._lake_files, name)
        return space

    def make(self, space: Space) -> Space:
        """Store a space and return it, or return the stored one of the same name and identity.

        Raises SpaceMismatch if the name belongs to a space with other settings.
        """
        self._files.write_once(f"{space.name}.json", space.to_json())
        stored = self._read(f"{space.name}.json")
        assert stored is not None
        if stored.fingerprint != space.fingerprint:
            differs = [
                f"{key} {value!r} (wanted {space.identity[key]!r})"
                for key, value in stored.identity.items()
                if value != space.identity[key]
            ]
            raise SpaceMismatch(
                f"space {space.name!r}: was embedded with {'; '.join(differs)}. Use those settings, or another --space name"
            )
        return stored

    def with_free_name(self, space: Space) -> Space:
        """The stored space of the same identity, else `space` under an unused name.

        If a space with other settings has its name, the first digits of the fingerprint are appended.
        """
        same = next((stored for stored in self.all() if stored.fingerprint == space.fingerprint), None)
        if same is not None:
            return same
        if self._read(f"{space.name}.json") is None:
            return space
        return replace(space, name=f"{space.name[:57]}-{space.fingerprint[:6]}")

    def _read(self, file: str) -> Space | None:
        text = self._files.read(file)
        if text is None:
            return None
        space = Space.from_json(text, f"spaces/{file}")
        if f"{space.name}.json" != file:
            raise LakeError(f"spaces/{file}: describes a space {space.name!r}. Restore the original")
        return space
