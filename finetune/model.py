"""The model that is trained: an encoder with LoRA, every layer pooled over time, and a head over a weighting of the layers.

    waves or states of a batch of clips  ->  logits (clip, output)

For each layer the mean and the maximum over the frames of a window, then over the windows of a clip (mean of means, by their
frames, and maximum of maxima): (clip, layer, 2 · dim).  A softmax over layers is learned, as in SUPERB (arXiv 2105.01051);
LayerNorm, Linear, GELU, Dropout and Linear follow.  LoRA: arXiv 2106.09685.

The encoder stays in eval mode: its own dropout is off, so that layers below the blocks that learn are those that are stored.
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


class Tuned(nn.Module):
    """Encoder, adapter and head; `forward` gives the loss and the logits."""

    def __init__(self, encoder: Any, config: FinetuneConfig, outputs: int, weights: torch.Tensor | None = None) -> None:
        """`encoder`: a `embed.encoders.hubert.HubertEncoder` in float32, which this changes.  `weights`: of classes, or of positives."""
        super().__init__()
        from peft import LoraConfig, get_peft_model

        blocks = len(encoder.layers) - 1
        torch.manual_seed(config.seed)
        lora = LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.lora_dropout, target_modules=list(config.targets),
            layers_to_transform=list(range(config.above, blocks)), layers_pattern="layers", bias="none", task_type=None,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # which peft asks transformers for
            self.peft = get_peft_model(encoder.model, lora)
        self.head = Head(blocks + 1 - config.above, 2 * encoder.dims[-1], outputs, config.hidden, config.dropout)
        self.weights: torch.Tensor | None
        self.register_buffer("weights", weights, persistent=False)
        self.settings = config
        self.kind = config.task
        self.rate, self.normalizes = encoder.sample_rate, encoder.normalizes

    def train(self, mode: bool = True) -> Tuned:
        """Head and adapter; the encoder itself stays in eval mode."""
        super().train(mode)
        self.peft.train(False)
        for name, module in self.peft.named_modules():
            if "lora_dropout" in name:
                module.train(mode)
        return self

    @property
    def backbone(self) -> Any:
        """The transformers model."""
        return self.peft.base_model.model

    def forward(
        self, labels: torch.Tensor | None = None, waves: Sequence[torch.Tensor] = (),
        states: Sequence[Sequence[torch.Tensor]] = (), rows: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """`waves`: (samples,) a clip; or `states`: (frame, dim) a window of a clip, of layer `above`."""
        logits = self.head(self.pooled(waves, states)).float()
        return {"logits": logits} if labels is None else {"loss": self.loss(logits, labels), "logits": logits}

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, binary cross-entropy (negatives smoothed), or squared error of scaled targets."""
        if self.kind == "multiclass":
            return functional.cross_entropy(logits, labels, self.weights)
        if self.kind == "regression":
            return functional.mse_loss(logits, labels)
        wanted = labels + (1 - labels) * self.settings.label_smoothing
        return functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=self.weights)

    def pooled(self, waves: Sequence[torch.Tensor], states: Sequence[Sequence[torch.Tensor]] = ()) -> torch.Tensor:
        """(clip, layer, 2 · dim) float32: means, then maxima.  Windows of one length go through the encoder together."""
        above = self.settings.above
        alike: dict[int, list[tuple[int, torch.Tensor]]] = {}
        for clip, parts in enumerate(states or [self.windows(wave) for wave in waves]):
            for part in parts:
                alike.setdefault(len(part), []).append((clip, part))
        owners: list[int] = []
        means: list[torch.Tensor] = []
        maxima: list[torch.Tensor] = []
        frames: list[int] = []
        for places in alike.values():
            batch = torch.stack([part.float() for _, part in places])            # autocast on a CPU stacks no float16
            if states:
                hidden, start = batch, above
            else:
                hidden, start = first_layer(self.backbone, batch, self.normalizes), 0
            found = [
                (layer.float().mean(dim=1), layer.float().amax(dim=1))
                for layer in layers_from(self.backbone, hidden, start, above, bool(self.settings.checkpointing))
            ]
            means.append(torch.stack([mean for mean, _ in found], dim=1))        # (window, layer, dim)
            maxima.append(torch.stack([maximum for _, maximum in found], dim=1))
            owners += [clip for clip, _ in places]
            frames += [hidden.shape[1]] * len(places)
        mean, maximum = torch.cat(means), torch.cat(maxima)
        owner = torch.tensor(owners, device=mean.device)
        share = torch.tensor(frames, dtype=mean.dtype, device=mean.device)[:, None, None]
        clips = len(states or waves)
        total = mean.new_zeros(clips, *mean.shape[1:]).index_add(0, owner, mean * share)
        total = total / share.new_zeros(clips, 1, 1).index_add(0, owner, share)
        # By row numbers that are known here: a mask would have a GPU waited for.
        rows = [[row for row, of in enumerate(owners) if of == clip] for clip in range(clips)]
        peak = torch.stack([torch.stack([maximum[row] for row in own]).amax(dim=0) for own in rows])
        return torch.cat([total, peak], dim=2)

    def windows(self, wave: torch.Tensor) -> list[torch.Tensor]:
        """A clip cut as `embed` would, without overlap."""
        window = round(self.settings.window_s * self.rate)
        places = place_windows(len(wave), window, window, round(MIN_TAIL_S * self.rate))
        return [wave[place.begin : place.end] for place in places]

    def trained(self) -> dict[str, torch.Tensor]:
        """What learns, by name: all else is the encoder's own."""
        return {name: p.detach().cpu().contiguous() for name, p in self.named_parameters() if p.requires_grad}

    def take(self, state: dict[str, torch.Tensor]) -> None:
        """Set what learns.  Raises KeyError where a tensor is missing."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(state[name])

    def layer_weights(self) -> np.ndarray:
        """(layer,) what the softmax over layers came to, from layer `above` on."""
        return self.head.layer_scores.detach().softmax(dim=0).cpu().numpy()

    def parameters_of(self, lora: bool) -> list[tuple[str, nn.Parameter]]:
        """What learns of the adapter, or of the head."""
        return [(n, p) for n, p in self.named_parameters() if p.requires_grad and (LORA in n) == lora]
