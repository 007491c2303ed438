"""Fine-tuning from rendered notes to a new space, and whether it learns."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sounds import write

import tonelake

# Not traced for coverage, which would add half the time; its parts have their own tests.
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.no_cover, pytest.mark.slow]


def test_from_notes_to_a_tuned_space_and_back(tmp_path, checkpoints):
    """The whole workflow on rendered chorales: ingest, embed, probe, finetune, embed --adapter, layers and compare.

    Labels are random, so only memorisation helps, and the validation set repeats each bar at a lower level: LoRA can memorise
    the whole training set, a linear probe of 48 features cannot.
    """
    lake = tonelake.open(tmp_path / "notes", progress=False)
    lake.ingest_chorales(limit=10, bars=1, hop=1)
    rng = np.random.default_rng(0)
    rows = []
    for number, clip in enumerate(lake.clips.read(where="duration_s > 1.2").iter_rows(named=True)):
        sound, lot = lake.audio(clip["clip_id"])[:, None], f"lot {rng.integers(8)}"
        for side, level in (("train", 1.0), ("valid", 0.5), ("test", 0.25))[: 3 if number % 5 == 0 else 2]:
            path = write(tmp_path / "music" / f"{number}-{side}.wav", sound * level, rate=24_000)
            rows.append({"path": str(path), "lot": lot, "side": side, "piece": clip["piece"]})
    pl.DataFrame(rows).write_csv(tmp_path / "clips.csv")

    lake = tonelake.open(tmp_path / "lake", progress=False)
    assert lake.ingest_manifest(tmp_path / "clips.csv").failed == 0
    base = lake.embed(str(checkpoints / "95M-tiny"), window=5.0, precision="float32", device="cpu", frames=[0]).space
    (probed,) = lake.probe("lot", split="column:side", seeds=1, epochs=20)
    assert probed.metrics["outputs"] == 8
    run = lake.finetune(
        "lot", split="column:side", frames=True, epochs=20, patience=20, schedule="cosine", lora_rate=3e-3, head_rate=3e-3,
        dropout=0.0, lora_dropout=0.0, batch=16, together=16, device="cpu", precision="float32",
    )
    assert run.metrics["train"] > 0.9 and run.metrics["train"] > run.metrics["frozen"]["train"] + 0.2
    tuned_space = lake.embed(adapter=run.name).space
    assert len(lake.layers("piece", space=tuned_space).table) == len(lake.compare(base, tuned_space, "piece")) == 4
