"""Kernels are chosen by measurement, kept for this machine, and change vectors by rounding only."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from tonelake.embed import compare, encode_clips, load_encoder
from tonelake.embed.encoders.hubert import HubertEncoder
from tonelake.embed.kernels import attention, choice, linear
from tonelake.embed.kernels.choice import Figure, KernelChoice, Kernels, choose_kernels, fastest, pinned
from tonelake.embed.kernels.hubert_blocks import Blocks
from tonelake.embed.precision import cosine
from tonelake.store import InputError, cache_folder


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache folder, and no pinned kernels."""
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TONELAKE_KERNELS")
    return tmp_path / "cache"


@pytest.fixture
def calm(monkeypatch):
    """Accept any spread, since tests share the processor."""
    monkeypatch.setattr(choice, "MAX_SPREAD", np.inf)


@pytest.fixture(scope="module")
def tiny(checkpoints):
    return HubertEncoder(checkpoints / "95M-tiny")


def sizes_of(encoder, samples=24_000):
    return encoder._sizes(samples)


def test_a_choice_is_measured_once_and_kept(own_cache, calm, two_threads, tiny, monkeypatch):
    encoder = tiny.at("bfloat16")
    first = choose_kernels(encoder.model, sizes_of(encoder))
    assert first.reason == "measured on this machine"
    ways = {(figure.part, figure.way) for figure in first.figures}
    assert {("clips", "together"), ("clips", "apart"), ("attention", "torch"), ("attention", "blocks"),
            ("tile", "128"), ("tile", "256"), ("linear", "torch"), ("positions", "torch"), ("positions", "groups")} <= ways
    assert all(figure.ms > 0 and figure.spread >= 1 for figure in first.figures)
    monkeypatch.setattr(choice, "measure", lambda *_: pytest.fail("measured again"))
    assert choose_kernels(encoder.model, sizes_of(encoder)) == first


@pytest.mark.parametrize("change", [
    {"processor": "another"}, {"threads": 99}, {"torch": "1.0"}, {"tonelake": "0.0"},
])
def test_another_machine_or_version_is_measured_anew(own_cache, calm, tiny, monkeypatch, change):
    key = choice.machine_key()
    first = choose_kernels(tiny.model, sizes_of(tiny))
    monkeypatch.setattr(choice, "machine_key", lambda: key | change)
    measured = []
    monkeypatch.setattr(choice, "measure", lambda *_: measured.append(1) or first)
    choose_kernels(tiny.model, sizes_of(tiny))
    assert measured == [1]


@pytest.mark.parametrize("damage", [
    lambda text: text[: len(text) // 2],
    lambda text: "[]",
    lambda text: text.replace('"tile": 128', '"tile": 77').replace('"tile": 256', '"tile": 77'),
    lambda text: json.dumps({"key": json.loads(text)["key"], "result": {}}),
    lambda text: text.replace('"processor": "', '"processor": "other '),
], ids=["cut", "list", "tile", "empty", "processor"])
def test_a_damaged_or_foreign_file_is_measured_anew(own_cache, calm, tiny, damage, monkeypatch):
    first = choose_kernels(tiny.model, sizes_of(tiny))
    (file,) = (cache_folder() / "measured").glob("*.json")
    file.write_text(damage(file.read_text()))
    measured = []
    monkeypatch.setattr(choice, "measure", lambda *_: measured.append(1) or first)
    assert choose_kernels(tiny.model, sizes_of(tiny)) == first
    assert measured == [1]
    monkeypatch.setattr(choice, "measure", lambda *_: pytest.fail("measured again"))
    assert choose_kernels(tiny.model, sizes_of(tiny)) == first


def test_a_cache_folder_that_cannot_be_written_is_no_error(own_cache, calm, tiny):
    own_cache.parent.joinpath("cache").write_text("a file where the folder should be")
    assert choose_kernels(tiny.model, sizes_of(tiny)).figures


def test_a_disturbed_measurement_keeps_the_default_and_is_not_kept(own_cache, tiny, monkeypatch):
    monkeypatch.setattr(choice, "MAX_SPREAD", 0.0)
    found = choose_kernels(tiny.model, sizes_of(tiny))
    assert found.kernels == Kernels()
    assert "tile: disturbed, 128 by default" in found.reason
    assert not (own_cache / "measured").exists()


def test_the_fastest_of_quiet_figures_is_chosen():
    figures = [Figure("tile", "128", 10.0, 1.1), Figure("tile", "256", 9.0, 1.2)]
    assert fastest(figures) == "256"
    assert fastest([figures[0], replace(figures[1], spread=3.0)]) is None
    slow = Figure("attention", "blocks", 90.0, 5.0)
    assert fastest([*figures, slow]) == "256", "the spread of a way that is far behind does not matter"
    close = [Figure("clips", "together", 10.0, 1.0), Figure("clips", "apart", 10.3, 1.0)]
    assert fastest(close) == "apart"
    assert fastest([close[0], replace(close[1], ms=12.0)]) == "together"


def test_a_pin_is_respected(own_cache, calm, tiny, monkeypatch):
    monkeypatch.setenv("TONELAKE_KERNELS", "attention=blocks, tile=256, clips=together, linear=torch, positions=torch")
    found = choose_kernels(tiny.model, sizes_of(tiny))
    assert (found.kernels, found.figures) == (Kernels("blocks", 256, "together"), ())
    assert found.reason == "pinned by TONELAKE_KERNELS"
    monkeypatch.setenv("TONELAKE_KERNELS", "tile=256")
    found = choose_kernels(tiny.model, sizes_of(tiny))
    assert found.kernels.tile == 256
    assert "tile" not in {figure.part for figure in found.figures}
    assert pinned("safe") == asdict(Kernels())


@pytest.mark.parametrize("text", ["fast", "attention=quick", "tile=129", "speed=1", "attention", "=torch"])
def test_a_pin_that_is_not_understood_names_the_choices(text):
    with pytest.raises(InputError, match=r"TONELAKE_KERNELS: .* is unknown\. Write safe, or some of attention=torch\|blocks"):
        pinned(text)


def test_a_pin_that_this_processor_cannot_follow_is_an_error(monkeypatch):
    monkeypatch.setattr(attention, "has_matrix_unit", lambda: False)
    monkeypatch.setattr(attention, "has_vector_unit", lambda: False)
    for pin, needed in (("attention=amx", "AMX"), ("linear=amx", "AMX"), ("attention=vectors", "AVX-512 and bfloat16")):
        with pytest.raises(InputError, match=f"{pin} needs a processor with {needed}"):
            pinned(pin)


def test_a_processor_without_these_units_is_offered_neither_way(own_cache, calm, tiny, monkeypatch):
    monkeypatch.setattr(attention, "has_matrix_unit", lambda: False)
    monkeypatch.setattr(attention, "has_vector_unit", lambda: False)
    encoder = tiny.at("bfloat16")
    found = choose_kernels(encoder.model, sizes_of(encoder))
    ways = {(figure.part, figure.way) for figure in found.figures}
    assert ways.isdisjoint({("attention", "amx"), ("attention", "vectors"), ("linear", "amx")})
    assert found.kernels.attention in ("torch", "blocks")


def test_an_encoder_that_packed_its_weights_gives_the_same_vectors_and_its_weights_back(checkpoints, monkeypatch):
    """Bound: cosine 0.9999, as for every choice.  Live audio, which arranges the weights in its own way, finds them too."""
    window = np.random.default_rng(0).standard_normal((1, 30_000)).astype(np.float32)
    found, live, encoder = {}, [], load_encoder(str(checkpoints / "95M-tiny"), precision="bfloat16")
    first = encoder.model.encoder.layers[0].feed_forward.intermediate_dense
    weight, projected = first.weight.detach().clone(), torch.randn(40, encoder.dims[0]).bfloat16()
    for way in ("torch", "packed", "torch"):
        monkeypatch.setenv("TONELAKE_KERNELS", f"attention=torch,tile=128,clips=together,linear={way},positions=torch")
        encoder.kernels = None
        encoder.prepare(30_000)
        found[way] = encoder.encode(window)
        with torch.inference_mode():
            blocks = Blocks(encoder.model, [2], torch.bfloat16, attention_way="torch", linear_way="torch")
            live.append(blocks(projected, slice(0, 40))[0])
        assert first.weight.is_meta == (way == "packed")
        assert torch.equal(linear.dense_weight(first), weight)
    assert torch.equal(live[0], live[1])
    for name in ("mean", "max"):
        for a, b in zip(getattr(found["torch"], name), getattr(found["packed"], name), strict=True):
            assert cosine(a[0], b[0]) >= 0.9999


@pytest.mark.parametrize("wrong", [
    lambda q, k, v, s=None: attention.by_torch(q, k, v, s) * 1.1,
    lambda q, k, v, s=None: torch.full_like(q, float("nan")),
    lambda q, k, v, s=None: 1 / 0,
], ids=["larger", "nan", "failing"])
def test_a_wrong_attention_is_never_chosen(own_cache, calm, tiny, monkeypatch, wrong):
    monkeypatch.setattr(attention, "WAYS", attention.WAYS | {"blocks": wrong, "vectors": wrong, "amx": wrong})
    encoder = tiny.at("bfloat16")
    found = choose_kernels(encoder.model, sizes_of(encoder))
    assert found.kernels.attention == "torch"
    monkeypatch.setattr(attention, "WAYS", attention.WAYS | {"torch": wrong})
    monkeypatch.setattr(choice, "recall", lambda _: None)
    found = choose_kernels(encoder.model, sizes_of(encoder))
    assert found.kernels.attention == "float32", "if all are wrong, float32 is kept"


def test_every_choice_gives_the_same_vectors_but_for_rounding(checkpoints, monkeypatch, two_threads):
    """Bound: cosine 0.9999 at every layer and statistic in bfloat16, 0.9999999 in float32."""
    waves = [np.random.default_rng(seed).standard_normal(60_000).astype(np.float32) for seed in range(3)]
    for precision, bound in (("float32", 1 - 1e-7), ("bfloat16", 0.9999)):
        expected = None
        for way in attention.ways_here(64) if precision == "bfloat16" else ["torch"]:         # float32 has one
            for tile, products, positions in ((128, "torch", "groups"), (256, linear.ways_here(32, 32)[-1], "torch")):
                monkeypatch.setenv("TONELAKE_KERNELS", ",".join((
                    f"attention={way}", f"tile={tile}", "clips=together", f"linear={products}", f"positions={positions}"
                )))
                encoder = load_encoder(str(checkpoints / "95M-tiny"), precision=precision)
                found = encode_clips(encoder, waves, 2.0)
                expected = expected or found
                for a, b in zip(found, expected, strict=True):
                    for x, y in zip((*a.mean, *a.max), (*b.mean, *b.max), strict=True):
                        assert cosine(x, y) >= bound, (way, tile)


def test_clips_that_go_apart_have_the_vectors_of_clips_that_go_together(lake, music, checkpoints, monkeypatch, two_threads):
    """By the whole embedding of a lake, in several threads, each with its copy of the model."""
    from tonelake.embed import EmbedSettings, embed_clips, open_space
    from tonelake.ingest import ingest_folder, read_clips

    ingest_folder(lake, music, seconds=3.0)
    found = {}
    for clips in ("together", "apart"):
        monkeypatch.setenv("TONELAKE_KERNELS", f"attention=torch,tile=128,clips={clips},linear=torch,positions=torch")
        space, encoder = open_space(
            lake, EmbedSettings(str(checkpoints / "95M-tiny"), space=clips, window_s=2.0, precision="float32", device="cpu")
        )
        report = embed_clips(lake, space, encoder, read_clips)
        assert (report.new, report.failed) == (18, 0)
        assert encoder.clips_in_parallel == (2 if clips == "apart" else 1)
        found[clips] = lake.vectors(space).take(lake.clips.ids().to_list(), 2).vectors
    assert torch.get_num_threads() == 2
    assert lake.spaces.get("apart").fingerprint == lake.spaces.get("together").fingerprint, "kernels are no part of a space"
    np.testing.assert_allclose(found["apart"], found["together"], atol=2e-3)
    assert len({row.tobytes() for row in found["apart"]}) == 18, "each clip has its own vector"


def test_small_in_bfloat16_keeps_what_it_would_compute_wrongly_in_float32():
    encoder = load_encoder("small")
    found = compare(encoder, "bfloat16", seconds=3.0, rounds=0)
    assert found.worst_cosine >= 0.99


def test_heads_of_another_width_are_not_measured_with_the_matrix_unit(own_cache, calm):
    encoder = load_encoder("small").at("bfloat16")       # heads of 48
    found = choose_kernels(encoder.model, sizes_of(encoder))
    assert "amx" not in {figure.way for figure in found.figures}


@pytest.mark.slow
def test_the_doctor_reports_kernels_and_figures(own_cache, calm, checkpoints, two_threads):
    from tonelake.doctor import diagnose

    facts = diagnose(str(checkpoints / "95M-tiny"), precision="bfloat16", device="cpu").facts
    assert "attention " in facts["30 s windows"] and "measured on this machine" in facts["5 s windows"]
    assert "together" in facts["  clips, 5 s"] and " ms" in facts["  attention, 30 s"]


def test_live_audio_chooses_kernels_for_its_full_window(own_cache, calm, tiny, monkeypatch):
    from tonelake.embed import LiveFrames

    encoder = tiny.at("bfloat16")
    live = LiveFrames(encoder, 2, 24_000, window_s=1.0)
    assert encoder.kernels is not None
    chosen = encoder.kernels
    live.push(np.zeros(30_000, np.float32))
    assert encoder.kernels is chosen


def test_a_choice_survives_its_own_file(own_cache):
    made = KernelChoice(Kernels("blocks", 256, "apart"), (Figure("tile", "256", 1.0, 1.1),), "measured on this machine")
    assert choice.restore(json.loads(json.dumps(asdict(made)))) == made
    assert choice.restore(None) is None
    assert choice.restore({"kernels": {"attention": "unknown"}, "figures": [], "reason": ""}) is None
