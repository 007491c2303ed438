"""Probabilities of frame heads for whole clips, the mean over seeds, in float32."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tonelake.probes.frames.frame_data import FrameInput, times_reader
from tonelake.probes.frames.heads import HeadShape
from tonelake.probes.frames.probabilities import Posteriors
from tonelake.probes.heads import Tensors
from tonelake.probes.inputs import Preparation
from tonelake.store import InputError, Lake, LakeError, Space

if TYPE_CHECKING:
    from torch import nn

    from tonelake.probes.frames.run import FrameRun

CLIPS_AT_ONCE = 16                       # read from the store


@dataclass(kw_only=True)
class StoredHeads:
    """Trained heads of one input, one a seed, with the standardisation of their states."""

    kind: str                            # multilabel or multiclass
    shape: HeadShape
    spec: FrameInput
    preparation: Preparation
    states: list[Tensors]
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.modules: list[nn.Module] = []
        for state in self.states:
            module = self.shape.make()
            module.load_state_dict(state)
            self.modules.append(module.eval().to(self.device))

    def tensors(self) -> Tensors:
        """Return what `weights.safetensors` holds."""
        assert self.preparation.mean is not None and self.preparation.scale is not None
        found = {f"{seed}.{name}": value for seed, state in enumerate(self.states) for name, value in state.items()}
        return found | {
            "prepare.mean": torch.from_numpy(self.preparation.mean), "prepare.scale": torch.from_numpy(self.preparation.scale),
        }

    def metadata(self) -> dict[str, str]:
        """Return the metadata of `weights.safetensors`, from which the heads can be rebuilt."""
        return {"head": json.dumps(asdict(self.shape)), "kind": self.kind, "input": json.dumps(asdict(self.spec))}

    @classmethod
    def read(cls, run: FrameRun) -> StoredHeads:
        """Read the heads of a run.  Raises LakeError if they are missing or damaged."""
        tensors, metadata = run.weights(), run.metrics["head"]
        try:
            seeds = sorted({int(name.partition(".")[0]) for name in tensors if name[0].isdecimal()})
            states = [
                {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{seed}.")}
                for seed in seeds
            ]
            made: dict[str, Any] = {"shape": HeadShape(**metadata["shape"]), "kind": metadata["kind"]}
            layers = tuple(metadata["input"]["layers"])
            spec = FrameInput(**(metadata["input"] | {"layers": layers}))
            preparation = Preparation(False, tensors["prepare.mean"].numpy(), tensors["prepare.scale"].numpy())
            return cls(spec=spec, preparation=preparation, states=states, **made)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise LakeError(f"run {run.name!r}: its weights cannot be read ({error}). Train it again with --again") from error

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """Return (frame, output) float32 probabilities of one clip's (frame, width) or (layer, frame, width) states."""
        ready = torch.from_numpy(self.preparation.apply(states.astype(np.float32))).to(self.device)
        x = ready[:, None] if self.spec.parts else ready[None]
        total = torch.zeros(states.shape[-2], self.shape.outputs, device=self.device)
        with torch.inference_mode():
            for module in self.modules:
                logits = module(x)[0]
                total += torch.softmax(logits, dim=-1) if self.kind == "multiclass" else torch.sigmoid(logits)
        return (total / len(self.modules)).cpu().numpy()


def clip_posteriors(lake: Lake, space: Space, heads: StoredHeads, ids: Sequence[str]) -> Iterator[Posteriors]:
    """Yield the probabilities of clips in their order.  Raises InputError if their frames are not stored."""
    frames = lake.frames(space)
    readers = [frames.reader(ids, layer) for layer in heads.spec.layers]
    read_centres = times_reader(frames, ids, heads.spec.layers[0])
    for start in range(0, len(ids), CLIPS_AT_ONCE):
        part = list(range(start, min(start + CLIPS_AT_ONCE, len(ids))))
        times = read_centres(part)
        for number, centres, *states in zip(part, times, *(read(part) for read in readers), strict=True):
            if len({len(one) for one in states}) > 1:
                raise InputError(f"clip {ids[number]}: its layers have different numbers of frames. Embed it again")
            joined = np.stack(states) if heads.spec.parts else np.concatenate(states, axis=1)
            yield Posteriors(ids[number], centres, heads(joined))
