"""Make a hybrid of stored spaces, or add later clips to it (`store.hybrid`).  Nothing is encoded."""

from __future__ import annotations

from dataclasses import dataclass

from tonelake.store import (
    Hybrid,
    HybridPart,
    InputError,
    Lake,
    Space,
    SpaceMismatch,
    SpaceWeights,
    check_hybrid_parts,
    check_name,
    extend_hybrid,
    extend_hybrid_frames,
    parse_parts,
    rounded_weights,
)

DEFAULT_NAME = "hybrid"
EXAMPLE = "Write for example mert-v1-95m/7,musicnn, or with weights mert-v1-95m/7:0.7,musicnn:0.3"


@dataclass(frozen=True, kw_only=True)
class HybridReport:
    """The space that a hybrid made, and how many clips were joined."""

    space: str
    parts: str
    new: int
    known: int
    framed: int                          # clips whose frames were joined
    without_frames: str = ""             # the part that stores no frames of its layer; empty if all do

    def __str__(self) -> str:
        text = f"space {self.space}: {self.new:,} clips joined from {self.parts}, {self.known:,} known"
        if self.without_frames:
            return f"{text}; no frames, as {self.without_frames} has none stored"
        return f"{text}; frames of {self.framed:,} joined" if self.framed else text


def hybrid_space(lake: Lake, parts: SpaceWeights, *, name: str | None = None) -> HybridReport:
    """Make a space whose vectors are those of several layers side by side, or add new clips to it; returns what was done.

    `parts`: `A/LAYER,B/LAYER`, or with weights `A/LAYER:0.7,B/LAYER:0.3`; without a layer a space's default one.  The cosine of
    two vectors is the mean of their cosines in the parts with these weights: equal ones unless they are given, since no part
    is known to be better.  `name`: by default `hybrid`, with digits of the fingerprint if another space has that name.
    Frames are joined as well if every part stores frames of its layer.
    Raises InputError for parts that cannot be parsed, or that lack vectors of clips which other parts have; SpaceMismatch if
    the name belongs to another space.
    """
    hybrid = parse_hybrid(lake, parts)
    check_hybrid_parts(lake, hybrid)
    if name is not None:
        check_name(name)
    space = hybrid.describe(name or DEFAULT_NAME)
    if name is None:
        space = lake.spaces.with_free_name(space)
    stored = next((one for one in lake.spaces.all() if one.name == space.name), None)
    if stored is not None and stored.fingerprint != space.fingerprint:
        raise SpaceMismatch(f"space {space.name!r}: already exists with other settings. Choose another --space")
    space = stored or lake.spaces.make(space)
    new = extend_hybrid(lake, space)
    missing = next((part.layer_name for part in hybrid.parts if part.layer not in lake.frames(part.space).layers()), "")
    return HybridReport(
        space=space.name, parts=str(hybrid), new=new, known=lake.vectors(space).count() - new,
        framed=0 if missing else extend_hybrid_frames(lake, space), without_frames=missing,
    )


def find_hybrid(lake: Lake, parts: SpaceWeights) -> Space | None:
    """The stored space of these parts, whatever its name; None if there is none.  Raises InputError as `hybrid_space`."""
    wanted = parse_hybrid(lake, parts).describe(DEFAULT_NAME).fingerprint
    return next((space for space in lake.spaces.all() if space.fingerprint == wanted), None)


def parse_hybrid(lake: Lake, parts: SpaceWeights) -> Hybrid:
    """Parse the parts of a hybrid.  Raises InputError as `hybrid_space`."""
    text, found = parse_parts(lake.spaces, parts, option="--hybrid", example=EXAMPLE)
    if len(found) < 2:
        raise InputError(f"--hybrid {text}: needs two spaces or layers. {EXAMPLE}")
    if any(weight <= 0 for _, _, weight in found):
        raise InputError(f"--hybrid {text}: weights must be above zero. {EXAMPLE}")
    weights = rounded_weights([weight for _, _, weight in found])
    return Hybrid(parts=tuple(
        HybridPart(space=space, layer=layer, weight=weight) for (space, layer, _), weight in zip(found, weights, strict=True)
    ))
