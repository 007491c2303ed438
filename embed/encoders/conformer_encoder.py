"""Encoders whose model is a conformer: an encoder in bfloat16 on a CPU measures which attention is the fastest here."""

from __future__ import annotations

from typing import Any

from tonelake.embed.encoders.torch_encoder import TorchEncoder
from tonelake.embed.kernels.choice import Sizes, choose_attention


class ConformerEncoder(TorchEncoder):
    """A `TorchEncoder` whose model has `sizes`, and blocks of `embed.encoders.conformer.Attending`."""

    def prepare(self, samples: int) -> None:
        """Choose the attention; on CUDA, measure how many windows of this length fit into memory."""
        self._own_model(samples)
        super().prepare(samples)

    def _own_model(self, samples: int) -> Any:
        """The model, once its attention is chosen, for windows of the first length seen."""
        if self.kernels is None and self.device == "cpu" and self.precision == "bfloat16":
            sizes = self._model.sizes
            choice = choose_attention(Sizes(
                heads=sizes.heads, width=sizes.hidden // sizes.heads, hidden=sizes.hidden, inner=sizes.inner, channels=0,
                windows=self._batches.size(samples), frames=self.frames_of(samples), precision=self.precision,
            ))
            for module in self._model.modules():
                if hasattr(module, "attention_way"):
                    module.attention_way = choice.kernels.attention
            self.kernels = choice
        return self._model
