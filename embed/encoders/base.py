"""The base class of encoders: windows of samples in, pooled vectors of every layer out.

An encoder knows nothing of lakes, files or clips.  A new one is a subclass of `Encoder` that declares its layers and defines
`encode`; everything else has a default.  What an encoder can do beyond that (other precisions, adapters, frames, text, tags) is
declared by attributes, which callers read before they call the method.  `embed.encoders.table` lists our own encoders;
`embed.encoders.registry` loads them by name, and those of other packages as `module:Class` or by entry point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tonelake.embed.encoders.live_pass import LivePass
from tonelake.embed.errors import EncoderError
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.embed.encoders.adapter import Adapter
    from tonelake.embed.encoders.training import TrainingPass
    from tonelake.embed.kernels.choice import KernelChoice

PRECISIONS = ("float32", "bfloat16", "float16")
REQUIRED = ("name", "revision", "sample_rate", "layers", "dims", "frame_samples")        # attributes without a default

FrameSpan = tuple[int, int | None]       # the frames of a window that count: first, and one past the last; None for the end


class Pooled(NamedTuple):
    """A batch pooled over time: one (batch, dim) float32 array per layer and statistic."""

    mean: list[np.ndarray]
    max: list[np.ndarray]
    n_frames: np.ndarray                             # (batch,) int: number of frames pooled
    frames: Sequence[Sequence[np.ndarray]] = ()      # [requested layer][window]: (frame, dim) float16


class Encoder(ABC):
    """One way to turn audio into vectors.  A subclass inherits the defaults given here."""

    # Identity: decides, with the layers, whether two sets of vectors can be compared.
    name: str                            # shown to users
    revision: str                        # digest of weights and settings, or the version of the encoder's own code
    location: str = ""                   # the name under which `load_encoder` finds it again; set by the loader
    adapter: str = ""                    # digest of a LoRA adapter; empty for none
    adapter_location: str = ""

    # Input and layers.
    sample_rate: int                     # Hz
    layers: tuple[str, ...]              # names, in order
    dims: tuple[int, ...]                # width of each layer
    default_layer: int = 0               # number of the layer that is used where none is named
    frame_samples: int                   # from the centre of one frame to that of the next

    # Origin and kind.
    licence: str = ""                    # of the weights; empty if unknown
    learned: bool = True                 # False for descriptors that are computed, not learned
    needs_torch: bool = False            # whether it computes with torch

    # How it runs here.
    precision: str = "float32"
    device: str = "cpu"
    clips_at_once: int = 1               # number of clips whose windows may share a batch
    clips_in_parallel: int = 1           # number of threads that may call `encode` at the same time
    float32_modules: Sequence[str] = ()  # parts that stay in float32 in a lower precision, which computes them wrongly here
    kernels: KernelChoice | None = None  # chosen by `prepare`, if the encoder chooses kernels

    # Further abilities.
    has_frames: bool = True              # whether `encode` returns frames, which storing them and live audio need
    trainable: bool = False              # whether `finetune` can train it, by `prepare_training` and `training_pass`
    lora_targets: tuple[str, ...] = ()   # linear layers of `model` that LoRA changes by default; empty: no adapter fits
    normalizes: bool = False             # whether each window is scaled to zero mean and unit variance first
    text_layer: str | None = None        # name of the layer whose vectors `encode_text` shares; None: no text
    text_scale: float = 1.0              # of cosines of words and sounds, before a softmax over prompts
    tags: tuple[str, ...] = ()           # names of the tags that `score_tags` scores
    tag_layers: tuple[str, ...] = ()     # names of the layers whose means it takes

    @cached_property
    def frame_offset(self) -> int:
        """Samples from the start of a window to the centre of its first frame; by default half of `frame_samples`."""
        return self.frame_samples // 2

    @cached_property
    def frame_field(self) -> int:
        """Number of samples that one frame depends on; by default twice `frame_offset`."""
        return 2 * self.frame_offset

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that `at` accepts on this device; by default the one in which the encoder computes."""
        return (self.precision,)

    def prepare(self, samples: int) -> None:  # noqa: B027 - optional
        """Prepare for many windows of this length: measure batch sizes, compile.  Does nothing by default."""

    @abstractmethod
    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) float32 windows of one length, never padded -> every layer, pooled.

        `keep`: the frames of each window to pool over, by default all; `frames`: indices of the layers whose frames are
        returned as well.
        """

    def frames_of(self, samples: int) -> int:
        """Number of frames that the encoder makes of a window."""
        return max(0, (samples - self.frame_field) // self.frame_samples + 1)

    def states(self, window: np.ndarray, layer: int) -> np.ndarray:
        """(samples,) -> (frame, dim) float32 of one layer, for live audio.

        An encoder of many layers overrides this to leave out the layers above.
        """
        return self.encode(window[None], frames=(layer,)).frames[0][0].astype(np.float32)

    def states_of(self, window: np.ndarray, layers: Sequence[int]) -> list[np.ndarray]:
        """(samples,) -> (frame, dim) float32 of each of these layers, in their order, by one pass.

        An encoder that overrides `states` alone computes them one by one.
        """
        if len(layers) == 1 or type(self).states is not Encoder.states:
            return [self.states(window, layer) for layer in layers]
        return [of_layer[0].astype(np.float32) for of_layer in self.encode(window[None], frames=tuple(layers)).frames]

    def live_pass(self, layers: Sequence[int], drift: float) -> LivePass:
        """How live audio computes these layers, window after window of one stream; by default one offline pass over each.

        An encoder that reuses what it computed for the window before overrides this.  `drift`: the largest relative change of
        what it takes from the whole window, such as a norm over time, up to which it may; 0: frames equal those of an offline
        pass.  Called after `prepare`.
        """
        return LivePass(self, layers)

    def at(self, precision: str) -> Encoder:
        """This encoder in one of `precisions`.  Raises InputError for another precision."""
        if precision == self.precision:
            return self
        raise InputError(
            f"encoder {self.name!r}: computes in {' and '.join(self.precisions)} only, not {precision}. "
            f"Pass --precision {self.precisions[0]}"
        )

    def at_revision(self, revision: str) -> Encoder:
        """This encoder as it was at an earlier revision, if it still computes that one; else itself.

        A space keeps the revision with which it was made.  An encoder that gains a layer overrides this, so that spaces of the
        earlier revision can still be extended.
        """
        return self

    @property
    def model(self) -> Any:
        """The torch module that training changes, in eval mode, parameters frozen.  Raises EncoderError if there is none."""
        raise EncoderError(f"encoder {self.name!r}: has no trainable weights. Use MERT, HuBERT or wav2vec 2.0")

    def prepare_training(self, samples: int, precision: str, device: str) -> None:  # noqa: B027 - optional
        """Move `model` to a device and prepare it for training on windows of this length; does nothing by default."""

    def training_pass(self) -> TrainingPass:
        """How `model` is run for training.  Raises EncoderError unless the encoder is `trainable`."""
        raise EncoderError(f"encoder {self.name!r}: has no trainable weights. Use MERT, HuBERT or wav2vec 2.0")

    def adapted(self, adapter: Adapter, location: str) -> Encoder:
        """This encoder with an adapter's updates added to its weights.  Raises InputError unless it has `lora_targets`."""
        raise InputError(f"encoder {self.name!r}: takes no adapter. Leave out adapter {location}, or embed with MERT")

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """(prompt, dim) float32 vectors of words, comparable with those of layer `text_layer`.

        Raises InputError if the encoder has no text.
        """
        raise InputError(f"encoder {self.name!r}: does not understand words. Query with a clip, a file or the name of a song")

    def score_tags(self, means: Sequence[np.ndarray]) -> np.ndarray:
        """(clip, dim) mean vectors of each of `tag_layers` -> (clip, tag) float32 from 0 to 1, in the order of `tags`.

        Computed from vectors, not from audio, so that clips that are embedded need no second pass.  Raises InputError if the
        encoder has no tags.
        """
        raise InputError(f"encoder {self.name!r}: has no tags. Choose an encoder that lists tags in `tonelake encoders`")


def check_encoder(encoder: Encoder, location: str) -> None:
    """Raise EncoderError unless an encoder declares its layers, widths, rate and frames consistently."""
    missing = [name for name in REQUIRED if getattr(encoder, name, None) is None]
    if missing:
        raise EncoderError(f"encoder {location!r}: lacks {', '.join(missing)}. Declare them as attributes of the class")
    layers, dims = tuple(encoder.layers), tuple(encoder.dims)
    problem = None
    if not layers or len(layers) != len(dims) or len(set(layers)) != len(layers):
        problem = f"has {len(set(layers))} different layer names and {len(dims)} widths. Declare one name and one width a layer"
    elif not all(isinstance(dim, int) and dim > 0 for dim in (*dims, encoder.sample_rate, encoder.frame_samples)):
        problem = "has a width, sample_rate or frame_samples that is not a positive integer. Correct it"
    elif not 0 <= encoder.default_layer < len(layers):
        problem = f"has no layer {encoder.default_layer}, its default_layer. Choose 0 to {len(layers) - 1}"
    elif encoder.text_layer is not None and encoder.text_layer not in layers:
        problem = f"has no layer {encoder.text_layer!r}, its text_layer. Choose one of {', '.join(layers)}"
    elif not set(encoder.tag_layers) <= set(layers):
        problem = f"has not all of its tag_layers {', '.join(encoder.tag_layers)}. Choose among {', '.join(layers)}"
    if problem:
        raise EncoderError(f"encoder {location!r}: {problem}")


def check_frames(encoder: Encoder, frames: Sequence[object]) -> None:
    """Raise InputError if frames are requested from an encoder that has none."""
    if frames and not encoder.has_frames:
        raise InputError(
            f"encoder {encoder.name!r}: has no frames. Leave out --frames, or choose one that has, such as --encoder small"
        )


def pool_states(
    states: Sequence[np.ndarray], keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()
) -> Pooled:
    """Pool the states of each layer, (batch, frame, dim), as `Encoder.encode` returns them.

    >>> pooled = pool_states([np.arange(6.0).reshape(1, 3, 2)], keep=[(1, None)], frames=[0])
    >>> pooled.mean[0].tolist(), pooled.max[0].tolist(), pooled.n_frames.tolist(), pooled.frames[0][0].shape
    ([[3.0, 4.0]], [[4.0, 5.0]], [2], (2, 2))
    """
    spans = [slice(*span) for span in keep or [(0, None)] * len(states[0])]
    kept = [[window[span] for window, span in zip(layer, spans, strict=True)] for layer in states]
    return Pooled(
        [np.stack([window.mean(axis=0) for window in layer]).astype(np.float32) for layer in kept],
        [np.stack([window.max(axis=0) for window in layer]).astype(np.float32) for layer in kept],
        np.array([len(window) for window in kept[0]]),
        [[window.astype(np.float16) for window in kept[layer]] for layer in frames],
    )
