"""The trained model: an encoder with LoRA, layers pooled over time, and a head over a weighting of the layers.

    audio or frames of a batch of clips  ->  logits (clip, output)

For each layer, mean and maximum over the frames of a window, then over the windows of a clip (mean of means, weighted by
frames, and maximum of maxima): (clip, layer, 2 · dim).  A softmax over layers is learned, as in SUPERB (arXiv 2105.01051);
LayerNorm, Linear, GELU, Dropout and Linear follow.  LoRA: arXiv 2106.09685, by PEFT.

The encoder stays in eval mode, without its own dropout, so that layers below the trained blocks equal the stored ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tonelake.embed import MIN_TAIL_S, place_windows
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.forward import first_layer, layers_from

LORA = ".lora_"


class Head(nn.Module):
    """(clip, layer, width) -> (clip, output)."""

    def __init__(self, layers: int, width: int, outputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layer_scores = nn.Parameter(torch.zeros(layers))
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(hidden, outputs)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        weights = self.layer_scores.softmax(dim=0)
        mixed = torch.einsum("l,blw->bw", weights, pooled)
        return self.outer(self.dropout(functional.gelu(self.inner(self.norm(mixed)))))


class HeadModel(nn.Module):
    """A head with its loss: what a fine-tuning and its frozen baseline train in common.  `forward` is the subclass's."""

    head: Any
    settings: FinetuneConfig
    weights: torch.Tensor | None         # of classes, or of positives

    @property
    def kind(self) -> str | None:
        return self.settings.task

    def outcome(self, pooled: torch.Tensor, labels: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Return the logits of (clip, layer, width), and the loss if there are labels."""
        logits = self.head(pooled).float()
        return {"logits": logits} if labels is None else {"loss": self.loss(logits, labels), "logits": logits}

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return cross-entropy, binary cross-entropy (negatives smoothed), or squared error of scaled targets."""
        if self.kind == "multiclass":
            return functional.cross_entropy(logits, labels, self.weights)
        if self.kind == "regression":
            return functional.mse_loss(logits, labels)
        wanted = labels + (1 - labels) * self.settings.label_smoothing
        return functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=self.weights)

    def trained(self) -> dict[str, torch.Tensor]:
        """Return the trainable parameters by name, without the encoder's own weights."""
        return trained_parameters(self)

    def layer_weights(self) -> np.ndarray:
        """Return (layer,) the learned softmax weights, from layer `first` on."""
        return self.head.layer_scores.detach().softmax(dim=0).cpu().numpy()

    def parameters_of(self, lora: bool) -> list[tuple[str, nn.Parameter]]:
        """Return the trainable parameters of the adapter, or of the head."""
        return [(n, p) for n, p in self.named_parameters() if p.requires_grad and (LORA in n) == lora]


def trained_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the trainable parameters of a model by name."""
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}


class FrozenModel(HeadModel):
    """The head alone, on layers that were pooled by the unchanged encoder."""

    def __init__(self, head: Head, settings: FinetuneConfig, weights: torch.Tensor | None) -> None:
        super().__init__()
        self.head, self.settings = head, settings
        self.register_buffer("weights", weights, persistent=False)

    def forward(
        self, labels: torch.Tensor | None = None, pooled: torch.Tensor | None = None, rows: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """`pooled`: (clip, layer, 2 · dim), as `LoraModel.pooled` returns them."""
        assert pooled is not None
        return self.outcome(pooled, labels)


class LoraModel(HeadModel):
    """Encoder, adapter and head; `forward` gives the loss and the logits."""

    def __init__(self, encoder: Any, config: FinetuneConfig, outputs: int, weights: torch.Tensor | None = None) -> None:
        """`encoder`: a trainable one in float32, modified in place.  `weights`: of classes, or of positives."""
        super().__init__()
        from peft import LoraConfig, get_peft_model

        blocks = len(encoder.layers) - 1
        self.run = encoder.training_pass()
        torch.manual_seed(config.seed)
        lora = LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.lora_dropout,
            target_modules=list(config.targets or encoder.lora_targets), layers_to_transform=list(range(config.above, blocks)),
            layers_pattern=self.run.block_list, bias="none", task_type=None,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # accessed by peft
            self.peft = get_peft_model(encoder.model, lora)
        self.settings = config
        self.head = self.make_head(blocks + 1 - config.first, 2 * encoder.dims[-1], outputs)
        self.register_buffer("weights", weights, persistent=False)
        self.rate = encoder.sample_rate

    def make_head(self, layers: int, width: int, outputs: int) -> nn.Module:
        """Return the untrained head; `width`: of the pooled layers, twice that of a frame."""
        return Head(layers, width, outputs, self.settings.hidden, self.settings.dropout)

    def train(self, mode: bool = True) -> LoraModel:
        """Set the mode of head and adapter; the encoder itself stays in eval mode."""
        super().train(mode)
        self.peft.train(False)
        for name, module in self.peft.named_modules():
            if "lora_dropout" in name:
                module.train(mode)
        return self

    def forward(
        self, labels: torch.Tensor | None = None, audio: Sequence[torch.Tensor] = (),
        frames: Sequence[Sequence[torch.Tensor]] = (), rows: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """`audio`: (samples,) for each clip; or `frames` of layer `above`: (frame, dim) for each window of each clip."""
        return self.outcome(self.pooled(audio, frames), labels)

    def pooled(self, audio: Sequence[torch.Tensor], frames: Sequence[Sequence[torch.Tensor]] = ()) -> torch.Tensor:
        """Return (clip, layer, 2 · dim) float32: means, then maxima.  Windows of one length are encoded as one batch."""
        above, first = self.settings.above, self.settings.first
        by_length: dict[int, list[tuple[int, torch.Tensor]]] = {}
        for clip, parts in enumerate(frames or [self.windows(samples) for samples in audio]):
            for part in parts:
                by_length.setdefault(len(part), []).append((clip, part))
        owners: list[int] = []
        means: list[torch.Tensor] = []
        maxima: list[torch.Tensor] = []
        frame_counts: list[int] = []
        for group in by_length.values():
            batch = torch.stack([part.float() for _, part in group])             # CPU autocast cannot stack float16
            if frames:
                hidden, start = batch, above
            else:
                hidden, start = first_layer(self.run, batch), 0
            found = [
                (layer.float().mean(dim=1), layer.float().amax(dim=1))
                for layer in layers_from(self.run, hidden, start, above, first, bool(self.settings.checkpointing))
            ]
            means.append(torch.stack([mean for mean, _ in found], dim=1))        # (window, layer, dim)
            maxima.append(torch.stack([maximum for _, maximum in found], dim=1))
            owners += [clip for clip, _ in group]
            frame_counts += [hidden.shape[1]] * len(group)
        mean, maximum = torch.cat(means), torch.cat(maxima)
        owner = torch.tensor(owners, device=mean.device)
        share = torch.tensor(frame_counts, dtype=mean.dtype, device=mean.device)[:, None, None]
        clips = len(frames or audio)
        total = mean.new_zeros(clips, *mean.shape[1:]).index_add(0, owner, mean * share)
        total = total / share.new_zeros(clips, 1, 1).index_add(0, owner, share)
        # Row numbers are known on the CPU: a boolean mask would force a GPU sync.
        rows = [[row for row, of in enumerate(owners) if of == clip] for clip in range(clips)]
        peak = torch.stack([torch.stack([maximum[row] for row in own]).amax(dim=0) for own in rows])
        return torch.cat([total, peak], dim=2)

    def windows(self, samples: torch.Tensor) -> list[torch.Tensor]:
        """Cut a clip into windows as `embed` does, without overlap."""
        size = round(self.settings.window_s * self.rate)
        windows = place_windows(len(samples), size, size, round(MIN_TAIL_S * self.rate))
        return [samples[window.begin : window.end] for window in windows]
