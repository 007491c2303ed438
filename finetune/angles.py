"""Angles between the class directions of a head, and between the LoRA updates of layers.

Each row of a head's last linear layer (class, hidden) is the direction of a class: 90° means that two classes depend on
different features, 0° on the same ones.  Each layer's LoRA update ΔW = scale · B · A is flattened to one vector; besides the
angle, the table has the share of rank-r subspaces that two layers have in common: ‖Q₁ᵀ Q₂‖² / r of orthonormal bases of the
row space of A, as Hu et al. 2021 (arXiv 2106.09685, section 7.2) compare subspaces.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tonelake.embed import read_adapter, resolve_adapter
from tonelake.finetune.checkpoint_file import WEIGHT_SUFFIXES, CheckpointWeights, last_linear, read_checkpoint_file
from tonelake.finetune.runs import FinetuneRun
from tonelake.store import InputError, Lake

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.*)")


class Angles(NamedTuple):
    """Two tables with a row a pair: first, second, degrees; for layers also module and shared."""

    classes: pl.DataFrame
    layers: pl.DataFrame


def orthogonality(lake: Lake | None, run: str) -> Angles:
    """Return the angles of a run of the lake, or of a checkpoint file (`lake` may then be None).

    Raises InputError if the run does not exist, or if the file has neither a head nor LoRA updates.
    """
    path = Path(run).expanduser()
    if path.is_file() or path.suffix in WEIGHT_SUFFIXES:
        weights = read_checkpoint_file(path)
        head = last_linear(weights.others)
        names = list(weights.names) or [str(number) for number in range(0 if head is None else len(head))]
    else:
        if lake is None:
            raise InputError(f"{run}: not a checkpoint file")
        tuning = FinetuneRun.named(lake, run)
        weights = CheckpointWeights(pairs=read_adapter(resolve_adapter(tuning.adapter, lake.uri)).pairs)
        head = tuning.head().get("outer.weight")             # a head that reads frames has none
        classes = tuning.table("classes")["name"].to_list() if head is not None and tuning.config.task != "regression" else []
        names = classes or [str(number) for number in range(0 if head is None else len(head))]
    if head is None and not weights.pairs:
        raise InputError(f"{run}: holds neither a head nor LoRA updates")
    return Angles(class_angles(names, head), layer_angles(weights.pairs))


def class_angles(names: list[str], head: Any) -> pl.DataFrame:
    """Return the angle of each pair of classes, smallest first."""
    schema = {"first": pl.String, "second": pl.String, "degrees": pl.Float64}
    if head is None or len(head) < 2:
        return pl.DataFrame(schema=schema)
    return pairs_table(names, np.asarray(head.float().numpy(), np.float64)).select(schema.keys())


def layer_angles(pairs: dict[str, tuple[Any, Any]]) -> pl.DataFrame:
    """Return the angle of each pair of layers of one kind (q_proj, v_proj), smallest first, with the shared subspace.

    A kind is named as briefly as is unambiguous: ffn1.w_1 and ffn2.w_1 if a block has both.
    """
    kinds: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    found = {module: match for module in pairs if (match := LAYER.search(module))}
    short = brief_names({match[2] for match in found.values()})
    for module, match in found.items():
        a, b = (np.asarray(t.float().numpy(), np.float64) for t in pairs[module])
        kinds.setdefault(short[match[2]], []).append((int(match[1]), a, b))
    parts = []
    for kind, members in sorted(kinds.items()):
        members = [member for member in members if np.abs(member[2]).max(initial=0) > 0]     # B is zero before training
        if len(members) < 2:
            continue
        table = pairs_table([str(number) for number, _, _ in members], update_products(members), gram=True)
        bases = {str(number): np.linalg.qr(a.T)[0] for number, a, _ in members}
        shared = [
            float(np.square(bases[x].T @ bases[y]).sum() / min(bases[x].shape[1], bases[y].shape[1]))
            for x, y in table.select("first", "second").iter_rows()
        ]
        parts.append(table.with_columns(module=pl.lit(kind), shared=pl.Series(shared)))
    schema = {"module": pl.String, "first": pl.String, "second": pl.String, "degrees": pl.Float64, "shared": pl.Float64}
    return pl.concat(parts).select(schema.keys()) if parts else pl.DataFrame(schema=schema)


def brief_names(modules: set[str]) -> dict[str, str]:
    """Return the last part of each name, or the whole name where several end alike.

    >>> brief_names({"attn.query_proj"}), sorted(brief_names({"ffn1.w_1", "ffn2.w_1"}).values())
    ({'attn.query_proj': 'query_proj'}, ['ffn1.w_1', 'ffn2.w_1'])
    """
    count = Counter(name.rpartition(".")[2] for name in modules)
    return {name: last if count[last := name.rpartition(".")[2]] == 1 else name for name in modules}


def update_products(members: list[tuple[int, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return (layer, layer) ⟨B₁A₁, B₂A₂⟩ = trace((B₁ᵀB₂)(A₂A₁ᵀ)), without forming an update."""
    return np.array([
        [float(np.sum((b.T @ other_b) * (a @ other_a.T))) for _, other_a, other_b in members] for _, a, b in members
    ])


def pairs_table(names: list[str], vectors: np.ndarray, gram: bool = False) -> pl.DataFrame:
    """Return first, second, degrees of each pair of vectors (or of their Gram matrix), the smallest angle first."""
    products = vectors if gram else vectors @ vectors.T
    lengths = np.sqrt(np.clip(np.diag(products), 1e-300, None))
    degrees = np.degrees(np.arccos(np.clip(products / np.outer(lengths, lengths), -1, 1)))
    rows, columns = np.triu_indices(len(names), 1)
    return pl.DataFrame({
        "first": [names[i] for i in rows], "second": [names[i] for i in columns], "degrees": degrees[rows, columns],
    }).sort("degrees", maintain_order=True)
