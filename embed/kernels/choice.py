"""Choose how an encoder computes on this CPU, by a measurement of well under a second.

    attention   `torch`, `blocks`, `vectors` or `amx`; see `embed.kernels.attention`
    tile        output frames of a tile of the convolutions: 128 or 256
    clips       `together`: one clip after another on all threads; `apart`: several clips, each on a thread of its own
    linear      layers: `torch`, `packed` or `amx`; see `embed.kernels.linear`
    positions   of HuBERT, by a convolution: `torch` or `groups`; see `embed.kernels.hubert_blocks.PositionalGroups`

Each part is timed at the model's own sizes and for windows of the length at hand; an attention whose result differs from the
formula is left out.  The result is kept in the cache folder.  TONELAKE_KERNELS pins parts (`attention=amx,clips=together`) or
all of them (`safe`).  A choice changes vectors by rounding only, so it does not belong to the identity of a space.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from tonelake.embed.kernels import attention, convolutions, hubert_blocks, linear
from tonelake.embed.kernels.threads import single_threads
from tonelake.embed.measured import machine_key, recall, remember
from tonelake.store import InputError, memory_bytes

VARIABLE = "TONELAKE_KERNELS"
TOGETHER, APART = "together", "apart"
ROUNDS, MIN_ROUNDS = 6, 3
MAX_S = 0.2                              # for a part; then the rounds end early
MAX_SPREAD = 1.5                         # median divided by minimum; beyond it something else disturbed the measurement
MAX_ERROR = 0.02                         # of an attention's result, relative to float32; bfloat16 alone has some 0.004
HUBERT_LINEAR = ("encoder.layers.", "feature_projection.")           # the parts of the model whose linear layers are chosen
PATIENCE = 1.05                          # clips go apart unless together is this much faster: apart suffers less from others
BLOCK_FRAMES = 750                       # of the block that `clips` is measured on: 10 s
TILE_FRAMES = 256
LINEAR_ROWS = 768                        # of the states that `linear` is measured on


@dataclass(frozen=True)
class Kernels:
    """One way of computing; the defaults are safe on every CPU."""

    attention: str = attention.SAFE
    tile: int = convolutions.TILES[0]
    clips: str = TOGETHER
    linear: str = linear.SAFE
    positions: str = hubert_blocks.POSITIONS[0]


VALUES: dict[str, tuple[Any, ...]] = {
    "attention": tuple(attention.WAYS), "tile": convolutions.TILES, "clips": (TOGETHER, APART),
    "linear": tuple(linear.WAYS), "positions": hubert_blocks.POSITIONS,
}


NEEDS: dict[str, tuple[str, Callable[[], bool]]] = {                 # of ways that not every processor has
    "amx": ("AMX", lambda: attention.has_matrix_unit()),
    "vectors": ("AVX-512 and bfloat16 arithmetic", lambda: attention.has_vector_unit()),
}


@dataclass(frozen=True)
class Figure:
    """One measured way of one part."""

    part: str
    way: str
    ms: float                            # the fastest of the rounds
    spread: float                        # median divided by the fastest


@dataclass(frozen=True)
class KernelChoice:
    """The chosen kernels, the figures, and how the choice came about."""

    kernels: Kernels
    figures: tuple[Figure, ...]
    reason: str


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model and of the windows it is used on."""

    heads: int
    width: int                           # of one head
    hidden: int
    inner: int                           # of the feed-forward layers
    channels: int                        # of the convolutions
    windows: int                         # in a batch
    frames: int                          # of a window
    precision: str

    @property
    def window_bytes(self) -> int:
        """Roughly the memory that a window in progress takes: hidden states and intermediate results in two precisions."""
        return self.windows * self.frames * 4 * (8 * self.hidden + 2 * self.inner)


def choose_kernels(model: Any, sizes: Sizes) -> KernelChoice:
    """Choose the kernels of a HubertModel or Wav2Vec2Model on the CPU: pinned, kept from before, or measured now.

    The model's kernels are changed while it is measured; `install` sets the result.  Raises InputError if
    TONELAKE_KERNELS cannot be understood.
    """
    return choose(model, sizes, HUBERT, install)


def choose_conformer_kernels(model: Any, sizes: Sizes, apply: Install) -> KernelChoice:
    """Choose the kernels of a conformer in bfloat16 on the CPU: pinned, kept from before, or measured now.

    `model.run_block` runs its first block; `apply` makes the model compute with the kernels chosen so far, as it has to be
    called with the result.  Raises InputError if TONELAKE_KERNELS cannot be understood.
    """
    return choose(model, sizes, CONFORMER, apply)


def choose_block_kernels(model: Any, sizes: Sizes, apply: Install) -> KernelChoice:
    """Choose the kernels, but for attention, of any model that has `run_block`, as `choose_conformer_kernels` does."""
    return choose(model, sizes, BLOCKS, apply)


def choose_live_kernels(model: Any, sizes: Sizes) -> KernelChoice:
    """Choose attention and linear layers for one window at a time on all threads; as `choose_kernels`, but changes no model."""
    return choose(model, sizes, LIVE, lambda model, kernels: None)


def choose(model: Any, sizes: Sizes, parts: Parts, apply: Install) -> KernelChoice:
    """Choose these parts: pinned, kept from before, or measured now.  Raises InputError for an unknown TONELAKE_KERNELS."""
    pins = pinned(os.environ.get(VARIABLE, ""))
    if set(parts.ways) <= set(pins):
        return KernelChoice(Kernels(**pins), (), f"pinned by {VARIABLE}")
    ways = {part: list(map(str, VALUES[part])) for part in parts.ways}           # a choice among fewer is not kept
    key = machine_key() | {"what": parts.name, "ways": ways, "model": type(model).__name__, "pinned": pins} | asdict(sizes)
    kept = restore(recall(key))
    if kept is not None:
        return kept
    chosen = measure(model, sizes, pins, parts, apply)
    if "disturbed" not in chosen.reason:
        remember(key, asdict(chosen))
    return chosen


def install(model: Any, kernels: Kernels) -> None:
    """Make a model compute with these kernels."""
    attention.use(model, kernels.attention)
    convolutions.use(model, kernels.tile)
    linear.use(model, kernels.linear, HUBERT_LINEAR)
    hubert_blocks.use_positions(model, kernels.positions)


def pinned(text: str) -> dict[str, Any]:
    """The parts that a text pins, as `part=way,…` or `safe`.  Raises InputError for an unknown part or way.

    >>> pinned("attention=torch,tile=256"), pinned("")
    ({'attention': 'torch', 'tile': 256}, {})
    """
    if text.strip() == "safe":
        return asdict(Kernels())
    found: dict[str, Any] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        part, _, way = word.partition("=")
        known = {str(value): value for value in VALUES.get(part.strip(), ())}
        if way.strip() not in known:
            choices = "; ".join(f"{name}={'|'.join(map(str, values))}" for name, values in VALUES.items())
            raise InputError(f"{VARIABLE}: {word!r} is unknown. Write safe, or some of {choices}, separated by commas")
        found[part.strip()] = known[way.strip()]
    for part, way in found.items():
        needed, here = NEEDS.get(str(way), ("", lambda: True))
        if not here():
            raise InputError(f"{VARIABLE}: {part}={way} needs a processor with {needed}, which this one lacks. Leave it out")
    return found


def restore(result: dict[str, Any] | None) -> KernelChoice | None:
    """A choice from its stored form; None if it is not a valid one."""
    try:
        kernels = Kernels(**result["kernels"])                       # type: ignore[index]
        if any(getattr(kernels, part) not in values for part, values in VALUES.items()):
            return None
        return KernelChoice(kernels, tuple(Figure(**f) for f in result["figures"]), str(result["reason"]))  # type: ignore[index]
    except (KeyError, TypeError):
        return None


# -- measuring


Ways = dict[str, Callable[[], Any]]
Install = Callable[[Any, Kernels], None]


@dataclass(frozen=True)
class Parts:
    """The parts that are chosen for a kind of model, and the functions that list their ways."""

    name: str
    ways: dict[str, Callable[[Any, Sizes], Ways]]


def measure(model: Any, sizes: Sizes, pins: dict[str, Any], parts: Parts, apply: Install) -> KernelChoice:
    """Measure the parts that are not pinned, each with the ways chosen before it.

    The others are timed on one thread if clips go apart, or if that is decided after them, else on all threads.
    """
    chosen, figures, reasons = replace(Kernels(), **pins), [], []
    decided = "clips" in pins
    for part, ways_of in parts.ways.items():
        if part in pins:
            continue
        apply(model, chosen)
        alone = part != "clips" and (chosen.clips == APART or not decided)
        decided = decided or part == "clips"
        with single_threads(1, "measure") if alone else ThreadPoolExecutor(1, "measure") as thread:
            found = thread.submit(time_part, part, ways_of, model, sizes).result()
        figures += found
        best = fastest(found)
        if best is not None:
            chosen = replace(chosen, **{part: next(value for value in VALUES[part] if str(value) == best)})
        elif found:
            reasons.append(f"{part}: disturbed, {getattr(chosen, part)} by default")
    apply(model, chosen)
    return KernelChoice(chosen, tuple(figures), "; ".join(reasons) or "measured on this machine")


def time_part(part: str, ways_of: Callable[[Any, Sizes], Ways], model: Any, sizes: Sizes) -> list[Figure]:
    """Time the ways of a part in alternation, after one round of warm-up, for a quarter of a second or `ROUNDS` rounds."""
    with in_precision(sizes):
        ways = ways_of(model, sizes)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        begun = time.perf_counter()
        for number in range(ROUNDS + 1):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                if number:
                    taken[name].append(1000 * (time.perf_counter() - started))
            if number >= MIN_ROUNDS and time.perf_counter() - begun > MAX_S:
                break
    return [Figure(part, name, min(ms), statistics.median(ms) / min(ms)) for name, ms in taken.items()]


@contextmanager
def in_precision(sizes: Sizes) -> Iterator[None]:
    """Compute as the encoder does: without gradients, and by autocast below float32.  Holds for the calling thread."""
    import torch

    lower = getattr(torch, sizes.precision)
    with torch.inference_mode(), torch.autocast("cpu", lower) if sizes.precision != "float32" else nullcontext():
        yield


def fastest(figures: list[Figure]) -> str | None:
    """The way to choose; None if there is none, or if its figures or those of the next best spread too widely."""
    def rank(figure: Figure) -> float:
        return figure.ms / (PATIENCE if figure.way == APART else 1)

    ranked = sorted(figures, key=rank)
    if not figures or (len(figures) > 1 and any(figure.spread > MAX_SPREAD for figure in ranked[:2])):
        return None
    return ranked[0].way


def attention_ways(model: Any, sizes: Sizes) -> Ways:
    """Attention at the model's sizes, in each way that computes it right here: in float32 if none does in bfloat16."""
    import torch

    if sizes.precision != "bfloat16":
        return {}
    generator = torch.Generator().manual_seed(0)
    heads = min(sizes.heads, max(4, torch.get_num_threads()))
    states = torch.randn(sizes.windows, sizes.frames, 3, heads, sizes.width, generator=generator)
    states[:, :, :2] *= 2                                            # scores from -20 to 20: some frames attend to a few others
    exact = [states[:, :, i].transpose(1, 2) for i in range(3)]
    query, key, value = (tensor.bfloat16() for tensor in exact)
    expected = attention.by_torch(query.float(), key.float(), value.float())
    ways: Ways = {}
    for name in attention.ways_here(sizes.width):
        way = attention.WAYS[name]
        try:
            error = relative_error(way(query, key, value), expected)
        except Exception:                # a kernel that cannot be compiled or run here is not a way here
            continue
        if error <= MAX_ERROR:
            ways[name] = lambda way=way: way(query, key, value)      # type: ignore[misc]
    return ways or {attention.EXACT: lambda: attention.in_float32(query, key, value)}


def linear_ways(model: Any, sizes: Sizes) -> Ways:
    """A feed-forward layer and its activation at the model's sizes, in each way that computes it right here."""
    import torch

    if sizes.precision != "bfloat16":
        return {}
    generator = torch.Generator().manual_seed(0)
    rows = min(sizes.windows * sizes.frames, LINEAR_ROWS)
    states = torch.randn(rows, sizes.hidden, generator=generator).bfloat16()
    shapes = (sizes.inner, sizes.hidden), (sizes.hidden, sizes.inner)
    weights = [(torch.randn(*shape, generator=generator) / shape[1] ** 0.5).bfloat16() for shape in shapes]
    expected = torch.nn.functional.gelu(states.float() @ weights[0].float().T) @ weights[1].float().T
    ways: Ways = {}
    for name in linear.ways_here(sizes.hidden, sizes.inner):
        try:
            first, second = (linear.WAYS[name](weight, None) for weight in weights)
            run = lambda first=first, second=second: second(first(states, "gelu"), "none")       # noqa: E731
            error = relative_error(run(), expected)
        except Exception:                # a kernel that cannot be compiled or run here is not a way here
            continue
        if error <= MAX_ERROR:
            ways[name] = run
    return ways


def relative_error(found: Any, expected: Any) -> float:
    """Length of the difference divided by the length of the expected tensor; infinite if a value is not finite."""
    error = float((found.float() - expected).norm() / expected.norm().clamp(min=1e-30))
    return error if math.isfinite(error) else math.inf


def position_ways(model: Any, sizes: Sizes) -> Ways:
    """The positional convolution over a window, at most a block's frames, in each way that computes it right here."""
    import torch

    module: Any = model.encoder.pos_conv_embed
    if module.conv.weight.dtype != torch.bfloat16 or not hubert_blocks.fits(model):
        return {}
    states = torch.randn(1, min(sizes.frames, BLOCK_FRAMES), sizes.hidden, generator=torch.Generator().manual_seed(0))
    plain, grouped = partial(type(module).forward, module, states), partial(hubert_blocks.PositionalGroups(module), states)
    right = relative_error(grouped(), plain().float()) <= MAX_ERROR
    return {"torch": plain} | ({"groups": grouped} if right else {})


def tile_ways(model: Any, sizes: Sizes) -> Ways:
    """The convolutions of some seconds of audio, in tiles of each size."""
    import torch

    if not isinstance(model.feature_extractor.forward, convolutions.Tiled):
        return {}
    samples = math.prod(model.config.conv_stride) * (TILE_FRAMES + 1)
    audio = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))

    def run(tile: int) -> None:
        convolutions.use(model, tile)
        model.feature_extractor(audio)

    return {str(tile): lambda tile=tile: run(tile) for tile in convolutions.TILES}       # type: ignore[misc]


def hubert_clip_ways(model: Any, sizes: Sizes) -> Ways:
    """`clip_ways` by the first block of a HubertModel or Wav2Vec2Model."""
    return clip_ways(model.encoder.layers[0], sizes)


def block_clip_ways(model: Any, sizes: Sizes) -> Ways:
    """`clip_ways` by a block of a model that has `run_block`."""
    return clip_ways(model.run_block, sizes)


def clip_ways(run: Callable[[Any], Any], sizes: Sizes) -> Ways:
    """As many passes through a block as there are threads: one after the other on all threads, or each on its own."""
    import torch

    threads = threads_for_clips(sizes)
    if threads < 2:
        return {}
    frames = min(sizes.frames, BLOCK_FRAMES)
    windows = max(1, min(sizes.windows, BLOCK_FRAMES // frames))
    hidden = torch.randn(windows, frames, sizes.hidden, generator=torch.Generator().manual_seed(0))

    def once(_: int = 0) -> None:
        with in_precision(sizes):
            run(hidden)

    def together() -> None:
        for _ in range(threads):
            once()

    def apart() -> None:
        with single_threads(threads, "measure") as pool:
            list(pool.map(once, range(threads)))

    return {TOGETHER: together, APART: apart}


def threads_for_clips(sizes: Sizes) -> int:
    """Number of clips encoded at once if each has a thread: torch's threads, or as many as a quarter of memory holds."""
    import torch

    return max(1, min(torch.get_num_threads(), memory_bytes() // 4 // sizes.window_bytes))


HUBERT = Parts("kernels", {
    "clips": hubert_clip_ways, "attention": attention_ways, "tile": tile_ways, "linear": linear_ways,
    "positions": position_ways,
})
# Threads that wait actively inside torch's functions slow down those of other kernels, so whether clips go apart is measured
# with the kernels that were chosen.
CONFORMER = Parts("conformer kernels", {"attention": attention_ways, "linear": linear_ways, "clips": block_clip_ways})
BLOCKS = Parts("block kernels", {"linear": linear_ways, "clips": block_clip_ways})
LIVE = Parts("live kernels", {"clips": lambda model, sizes: {}, "attention": attention_ways, "linear": linear_ways})
