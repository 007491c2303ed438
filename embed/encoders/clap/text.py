"""The text side of CLAP: prompts -> vectors of unit length in the joint space, by RoBERTa."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.embed.encoders.checkpoint import read_json
from tonelake.embed.encoders.clap.checkpoint import TEXT, read_side
from tonelake.embed.errors import CheckpointError, EncoderError
from tonelake.store import InputError

MOST_TOKENS = 77                         # of a prompt in the training of LAION's checkpoints (laion_clap, `tokenizer`)


class ClapText:
    """Tokenizer and text model of a checkpoint folder, in float32."""

    def __init__(self, folder: Path, revision: str, device: str) -> None:
        """Load both.  Raises CheckpointError if they are refused, EncoderError if the weights are not those of `revision`."""
        model, found = read_side(folder, TEXT)
        if found != revision:
            raise EncoderError(f"{folder}: its weights have changed since the audio side was loaded. Start again")
        self._model = model.text_model.to(device)
        self._projection = model.text_projection.to(device)
        self._device, self._pad = device, model.config.text_config.pad_token_id
        self._tokenizer = read_tokenizer(folder, model.config.text_config.vocab_size)
        self._most = min(MOST_TOKENS, model.config.text_config.max_position_embeddings - self._pad - 1)

    def encode(self, prompts: Sequence[str]) -> np.ndarray:
        """(prompt, dim) float32.  Raises InputError for a prompt that is longer than those of the training."""
        import torch

        if not prompts:
            return np.empty((0, self._projection.linear2.out_features), np.float32)
        tokens = [self._tokenizer(prompt, truncation=False, verbose=False)["input_ids"] for prompt in prompts]
        for prompt, ids in zip(prompts, tokens, strict=True):
            if len(ids) > self._most:
                raise InputError(
                    f"prompt {prompt[:40]!r} …: {len(ids)} tokens, but the encoder was trained on at most {self._most}. "
                    "Shorten it, or give several short ones"
                )
        longest = max(map(len, tokens))
        ids = torch.tensor([[*ids, *[self._pad] * (longest - len(ids))] for ids in tokens], device=self._device)
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in tokens], device=self._device)
        with torch.inference_mode():
            pooled = self._model(input_ids=ids, attention_mask=mask).pooler_output
            return torch.nn.functional.normalize(self._projection(pooled), dim=-1).float().cpu().numpy()


def read_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The tokenizer of a folder, from `tokenizer.json`, or from `vocab.json` and `merges.txt`.

    Raises CheckpointError if there is none, it cannot be read, or it has tokens beyond the model's vocabulary.
    """
    from transformers import PreTrainedTokenizerFast, RobertaTokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        else:
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
            tokenizer = RobertaTokenizer(vocab=read_json(folder, "vocab.json"), merges=merges)
        largest = max(tokenizer.get_vocab().values())
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: has neither tokenizer.json nor vocab.json and merges.txt, so words cannot be read. Fetch them as well"
        ) from error
    except Exception as error:           # tokenizers raises plain exceptions for damaged files
        reason = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{folder}: its tokenizer cannot be read ({reason}). Fetch it again") from error
    if largest >= vocabulary:
        raise CheckpointError(f"{folder}: its tokenizer has {largest + 1:,} tokens, the model {vocabulary:,}. Fetch it again")
    return tokenizer
