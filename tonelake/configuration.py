"""Configuration files: encoder, layer, pooling, device and quantizer in YAML, as performers write them.

    encoder: mert-95m
    layer: -1
    quantizer: {kind: kmeans, size: 64}

One file serves `embed`, `tokens`, `oracle` and `listen`; each command takes the keys that concern it.  The command line wins
over the file, and the file over the defaults of the command.  The space follows from the encoder and its settings, and the
vocabulary from the layer and the quantizer, so that neither has to be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from tonelake.embed import EmbedSettings, find_hybrid, stored_space
from tonelake.index import MOST_TOKENS, default_vocabulary_name, vocabulary_names
from tonelake.store import InputError, Lake, Positive, Settings, SpaceNotFound, Texts, frozen_settings, layer_with_frames

SPELLINGS = {"quantiser": "quantizer"}
TokenCount = Annotated[int, Field(ge=2, le=MOST_TOKENS)]


@frozen_settings
class Quantizer(Settings):
    """How frames become tokens."""

    kind: Literal["kmeans"] = Field(default="kmeans", description="Kind; kmeans: a frame's token is its nearest centre.")
    size: TokenCount = Field(default=2048, description="Number of tokens.")
    metric: Literal["euclidean", "cosine"] = Field(default="euclidean", description="Metric by which a centre is nearest.")
    seed: int = Field(default=0, description="Random seed of the sample and of the initial centres.")


@frozen_settings
class Configuration(Settings):
    """Every key of a configuration file.  None leaves the choice to the command.

    Raises InputError for a key that does not exist, a value that does not fit, and keys that contradict each other.
    """

    encoder: str | None = Field(default=None, description="Encoder by name, a checkpoint folder or module:Class.")
    adapter: str | None = Field(default=None, description="Fine-tuning run, or a folder in PEFT's format.")
    hybrid: Texts | None = Field(
        default=None, description="In place of an encoder: the parts of a hybrid, SPACE/LAYER or SPACE/LAYER:WEIGHT each."
    )
    space: str | None = Field(default=None, description="Name of the space; default: that of the encoder or hybrid.")
    layer: str | None = Field(
        default=None, description="Layer by number or name, -1 for the last; default: the space's default layer."
    )
    pooling: Literal["mean", "mean+max"] = Field(
        default="mean", description="Statistic over time: clips are compared by their mean; the maximum is stored as well."
    )
    frames: Texts | None = Field(
        default=None, description="Layers whose frames `embed` stores; default: `layer` if tokens are asked for, else none."
    )
    window_s: float | None = Field(default=None, description="Seconds that `embed` encodes at once; default: 30.")
    hop_s: float | None = Field(
        default=None, description="Seconds from one window of `embed` to the next; default: the window's length."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Precision of the encoder; auto: measured once, when the space is made."
    )
    device: str = Field(
        default="auto", description="Device: auto, cpu, cuda, cuda:1 or mps; auto: an accelerator if there is one."
    )
    tokens: TokenCount | None = Field(default=None, description="Short for the size of the quantizer.")
    quantizer: Quantizer | None = Field(
        default=None, description="Quantizer: kind, size, metric and seed, or its kind or size alone."
    )
    vocabulary: Texts | None = Field(
        default=None, description="Names of vocabularies, SPACE/NAME for one of another space; several only for `listen`; "
        "default: LAYER-SIZE, as `tokens fit` names it, if tokens are asked for.",
    )
    live_window_s: Positive = Field(default=5.0, description="Seconds that `listen` encodes at once.")
    live_hop_s: Positive = Field(default=0.5, description="Seconds between two runs of the encoder in `listen`.")
    heard_s: Positive = Field(default=3.0, description="Seconds of the stream that `listen` compares with clips.")
    hits: Annotated[int, Field(ge=0)] = Field(default=3, description="Number of hits that `listen` shows; 0 for none.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Settings from values as YAML gives them; a quantizer can be a table, its kind, or its size."""
        given = {SPELLINGS.get(str(key), str(key)): value for key, value in values.items()}
        quantizer = given.get("quantizer")
        if quantizer is not None:
            prefix = f"{where}, " if where else ""
            if isinstance(quantizer, Mapping):
                given["quantizer"] = Quantizer.from_dict(quantizer, f"{prefix}quantizer")
            elif isinstance(quantizer, int | str) and not isinstance(quantizer, bool):
                key = "size" if isinstance(quantizer, int) else "kind"
                given["quantizer"] = Quantizer.from_dict({key: quantizer}, f"{prefix}quantizer")
            else:
                raise InputError(
                    f"{prefix}setting 'quantizer': {quantizer!r} is no kind, size or table. Write {{kind: kmeans, size: 64}}"
                )
        return super().from_dict(given, where)

    def __post_init__(self) -> None:
        if self.tokens is not None and self.quantizer is not None and self.quantizer.size != self.tokens:
            raise InputError(
                f"setting 'tokens': {self.tokens} differs from the quantizer's size of {self.quantizer.size}. Give one of them"
            )
        other = next((name for name in ("encoder", "adapter") if getattr(self, name) is not None), None)
        if self.hybrid is not None and other is not None:
            raise InputError(f"setting 'hybrid': joins stored spaces, and {other!r} embeds a new one. Give one of them")
        EmbedSettings(
            self.encoder, space=self.space, window_s=self.window_s, hop_s=self.hop_s, precision=self.precision,
            device=self.device, adapter=self.adapter,
        )

    @property
    def asks_for_tokens(self) -> bool:
        return self.tokens is not None or self.quantizer is not None

    @property
    def quantized(self) -> Quantizer:
        """The quantizer, with the defaults of what is not given."""
        if self.quantizer is not None:
            return self.quantizer
        return Quantizer() if self.tokens is None else Quantizer(size=self.tokens)

    # -- defaults of command-line options

    def embed_options(self) -> dict[str, Any]:
        """Values of the options of `embed`."""
        frames = self.frames or ((self.layer,) if self.layer is not None and self.asks_for_tokens else ())
        if self.hybrid is not None:
            return {"hybrid": ",".join(self.hybrid), "space": self.space}
        return {
            "encoder": self.encoder, "adapter": self.adapter, "space": self.space, "window": self.window_s, "hop": self.hop_s,
            "precision": self.precision, "device": self.device, "frames": ",".join(frames) or None,
        }

    def fit_options(self) -> dict[str, Any]:
        """Values of the options of `tokens fit`."""
        one = self.vocabulary is not None and len(self.vocabulary) == 1
        found: dict[str, Any] = {
            "layer": self.layer, "name": self.vocabulary[0].rpartition("/")[2] if self.vocabulary and one else None,
        }
        if self.asks_for_tokens:
            found |= {"k": self.quantized.size, "metric": self.quantized.metric, "seed": self.quantized.seed}
        return found

    def listen_options(self) -> dict[str, Any]:
        """Values of the options of `listen`, without those that `for_session` finds."""
        return {
            "window": self.live_window_s, "hop": self.live_hop_s, "heard": self.heard_s, "k": self.hits,
            "device": None if self.device == "auto" else self.device,
        }

    # -- space and vocabulary

    def space_in(self, lake: Lake) -> str | None:
        """Name of the space of the encoder or hybrid; None, the default space, if the file names neither.

        Raises SpaceNotFound if the lake has no such space yet.
        """
        if self.space is not None:
            return self.space
        if self.hybrid is not None:
            joined = find_hybrid(lake, ",".join(self.hybrid))
            if joined is None:
                raise SpaceNotFound(f"hybrid {','.join(self.hybrid)}: is not in this lake. Run `tonelake embed --config FILE`")
            return joined.name
        if self.encoder is None and self.adapter is None:
            return None
        settings = EmbedSettings(
            self.encoder, window_s=self.window_s, hop_s=self.hop_s, precision=self.precision, adapter=self.adapter
        )
        return stored_space(lake, settings).name

    def for_command(
        self, lake: Lake, space: str | None, vocabulary: str | None = None
    ) -> tuple[str | None, str | None]:
        """Space and vocabulary of a command that takes one vocabulary; those given on the command line win.

        Raises InputError if the file names several vocabularies, SpaceNotFound as `space_in`.
        """
        if vocabulary is None and self.vocabulary is not None:
            if len(self.vocabulary) > 1:
                raise InputError(
                    f"setting 'vocabulary': names {len(self.vocabulary)} vocabularies, and this command takes one. Name it on "
                    "the command line"
                )
            own, _, vocabulary = self.vocabulary[0].rpartition("/")
            space = space or own or None
        space = space or self.space_in(lake)
        return space, vocabulary if vocabulary is not None else self.default_vocabulary(lake, space)

    def for_session(
        self, lake: Lake, space: str | None, layer: str | None, vocabularies: Sequence[str]
    ) -> tuple[str | None, str | None, list[str]]:
        """Space, layer and vocabularies of `listen`; those given on the command line win.

        A vocabulary's own record decides its space and layer; one of the file's space is preferred to others of its name.
        """
        if vocabularies:
            return space, layer, list(vocabularies)
        own = space or self.space_in(lake)
        if self.vocabulary is not None:
            known = vocabulary_names(lake, lake.spaces.get(own).name)
            return space, layer, [
                name if "/" in name or name not in known else f"{lake.spaces.get(own).name}/{name}" for name in self.vocabulary
            ]
        if self.asks_for_tokens:
            named = self.default_vocabulary(lake, own, layer)
            return own, layer, [] if named is None else [named]
        return own, layer if layer is not None else self.layer, []

    def default_vocabulary(self, lake: Lake, space: str | None, layer: str | None = None) -> str | None:
        """The name that `tokens fit` gives to the vocabulary; None if the file asks for no tokens."""
        if not self.asks_for_tokens:
            return None
        chosen = lake.spaces.get(space)
        number = layer_with_frames(lake.frames(chosen), chosen, layer if layer is not None else self.layer)
        return default_vocabulary_name(chosen.layers[number], self.quantized.size, self.quantized.metric)
