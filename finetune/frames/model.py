"""The trained model of a fine-tuning on events: an encoder with LoRA, and a frame head over a weighting of the layers.

    audio of a batch of clips  ->  logits (frame, output) of each clip

Each frame of each layer is scaled to zero mean and unit variance, because layers differ in size by orders of magnitude.  The
heads are those of frame probes; they see the frames of all windows of a crop in a row.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.forward import first_layer, layers_from
from tonelake.finetune.model import LORA, LoraModel, trained_parameters
from tonelake.probes import make_head


class FrameModel(LoraModel):
    """Encoder, adapter and frame head."""

    def __init__(
        self, encoder: Any, config: FinetuneConfig, outputs: int, weights: torch.Tensor, bias: np.ndarray | None
    ) -> None:
        """`weights`: (output,) of positives, or of classes.  `bias`: (output,) initial logits."""
        super().__init__(encoder, config, outputs, weights)
        if bias is not None:
            set_last_bias(self.head, torch.from_numpy(bias))

    def make_head(self, layers: int, width: int, outputs: int) -> nn.Module:
        config = self.settings
        return make_head(
            config.head, width // 2, outputs, hidden=config.hidden, context=config.context, dropout=config.dropout,
            layers=layers,
        )

    def forward(
        self, labels: Any = None, audio: Sequence[torch.Tensor] = (), frames: Sequence[Sequence[torch.Tensor]] = (),
        rows: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """`audio`: (samples,) for each clip; `labels`: (frame, output), or (frame,) of classes, for each clip.

        `frames`, of a label column, are not used.
        """
        logits = self.read(self.states(audio), self.head)
        return {"logits": logits} if labels is None else {"loss": self.frame_loss(logits, labels), "logits": logits}

    def states(self, audio: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return (layer, frame, dim) of each clip.  Windows of one length are encoded as one batch."""
        above, first = self.settings.above, self.settings.first
        by_length: dict[int, list[tuple[int, int, torch.Tensor]]] = {}
        for clip, samples in enumerate(audio):
            for number, part in enumerate(self.windows(samples)):
                by_length.setdefault(len(part), []).append((clip, number, part))
        found: dict[tuple[int, int], torch.Tensor] = {}
        for group in by_length.values():
            hidden = first_layer(self.run, torch.stack([part.float() for _, _, part in group]))
            layers = torch.stack([
                functional.layer_norm(layer.float(), layer.shape[-1:])
                for layer in layers_from(self.run, hidden, 0, above, first, bool(self.settings.checkpointing))
            ])                                                                           # (layer, window, frame, dim)
            for i, (clip, number, _) in enumerate(group):
                found[clip, number] = layers[:, i]
        return [
            torch.cat([found[key] for key in sorted(found) if key[0] == clip], dim=1) for clip in range(len(audio))
        ]

    def read(self, states: Sequence[torch.Tensor], head: nn.Module) -> list[torch.Tensor]:
        """Return (frame, output) float32 logits of each clip.  Clips of one length are read as one batch."""
        by_length: dict[int, list[int]] = {}
        for clip, own in enumerate(states):
            by_length.setdefault(own.shape[1], []).append(clip)
        found: dict[int, torch.Tensor] = {}
        for clips in by_length.values():
            logits = head(torch.stack([states[clip] for clip in clips], dim=1)).float()
            found |= dict(zip(clips, logits, strict=True))
        return [found[clip] for clip in range(len(states))]

    def frame_loss(self, logits: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the mean over the frames of a batch: binary cross-entropy with weighted positives, or weighted
        cross-entropy over frames with a label."""
        together, wanted = torch.cat(list(logits)), torch.cat(list(labels))
        assert self.weights is not None
        if wanted.ndim == 1:
            known = wanted >= 0
            if not known.any():
                return together.sum() * 0
            return functional.cross_entropy(together[known], wanted[known], self.weights)
        return functional.binary_cross_entropy_with_logits(together, wanted, pos_weight=self.weights)

    def layer_weights(self) -> np.ndarray:
        """Return (layer,) the learned softmax weights, from layer `first` on."""
        scores: Any = self.head.mix
        return scores.detach().softmax(dim=0).cpu().numpy()


class FrozenFrameModel(nn.Module):
    """A copy of the untrained head on the frames of the unchanged encoder: the frozen baseline."""

    def __init__(self, model: FrameModel) -> None:
        super().__init__()
        self.head = copy.deepcopy(model.head)
        self.settings, self.rate = model.settings, model.rate
        self.encoder = (model,)          # in a tuple, so that its parameters are not this model's

    def forward(
        self, labels: Sequence[torch.Tensor] | None = None, audio: Sequence[torch.Tensor] = (), rows: torch.Tensor | None = None
    ) -> dict[str, Any]:
        (model,) = self.encoder
        mode = model.training
        with torch.no_grad(), model.peft.disable_adapter():
            states = model.eval().states(audio)
        model.train(mode)
        logits = model.read(states, self.head)
        return {"logits": logits} if labels is None else {"loss": model.frame_loss(logits, labels), "logits": logits}

    def trained(self) -> dict[str, torch.Tensor]:
        """Return the trainable parameters by name."""
        return trained_parameters(self)

    def parameters_of(self, lora: bool) -> list[tuple[str, nn.Parameter]]:
        """Return the trainable parameters of the head; an adapter has none."""
        return [(n, p) for n, p in self.named_parameters() if p.requires_grad and (LORA in n) == lora]


def set_last_bias(head: nn.Module, bias: torch.Tensor) -> None:
    """Set the bias of a head's last layer."""
    last = [module for module in head.modules() if isinstance(module, nn.Linear | nn.Conv1d) and module.bias is not None][-1]
    assert last.bias is not None
    with torch.no_grad():
        last.bias.copy_(bias)
