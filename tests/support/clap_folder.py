"""Checkpoint folders of CLAP with tiny random weights, in the hub's form.  They test correctness, never quality."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import ClapConfig, ClapModel

MERGES = [("p", "i"), ("a", "n"), ("pi", "an"), ("pian", "o"), ("s", "l"), ("Ġ", "pi")]
AUDIO = {
    "patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 1, 2, 1], "num_attention_heads": [1, 2, 2, 4],
    "num_mel_bins": 64, "spec_size": 256, "window_size": 8,
}
TEXT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 514,
}


def write_clap(folder: Path, *, seed: int = 0, collapsed: bool = False, fused: bool = False) -> ClapModel:
    """Write configuration, preprocessor, tokenizer and weights.

    `collapsed`: a text side that answers every prompt alike.  `fused`: a configuration that mixes random parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), *map("".join, MERGES), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
    merges = "\n".join(" ".join(pair) for pair in MERGES)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "feature_extractor_type": "ClapFeatureExtractor", "processor_class": "ClapProcessor", "sampling_rate": 48_000,
        "max_length_s": 10, "fft_window_size": 1024, "hop_length": 480, "feature_size": 64, "frequency_min": 50,
        "frequency_max": 14_000, "truncation": "rand_trunc", "padding": "repeatpad", "top_db": None,
    }))
    config = ClapConfig(
        audio_config=AUDIO, text_config=TEXT | {"vocab_size": len(vocabulary)}, projection_dim=12,
    )
    torch.manual_seed(seed)
    model = ClapModel(config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim > 1:
                tensor.normal_(std=0.3 if name.startswith("text") else 0.15)
        model.audio_model.audio_encoder.batch_norm.running_mean.fill_(-30)
        model.audio_model.audio_encoder.batch_norm.running_var.fill_(400)
        if collapsed:
            model.text_projection.linear2.weight.mul_(1e-3)
            model.text_projection.linear2.bias.fill_(1)
    model.save_pretrained(folder)
    if fused:
        raw = json.loads((folder / "config.json").read_text())
        raw["audio_config"]["enable_fusion"] = True
        (folder / "config.json").write_text(json.dumps(raw))
    return model
