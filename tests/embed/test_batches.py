"""Batches are as large as memory allows, and no vector depends on the rest of its batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sounds import melody

from tonelake.embed import EncoderError, encode_clips, load_encoder
from tonelake.embed.batches import Batches
from tonelake.embed.encoders.hubert import HubertEncoder, compile_blocks


class Accelerator:
    """A fake device with memory for `room` windows; records its batches."""

    def __init__(self, room: int) -> None:
        self.room, self.seen = room, []

    def __call__(self, windows, rows):
        self.seen.append((len(windows), rows.stop - rows.start))
        if len(windows) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return windows[: rows.stop - rows.start, 0].tolist()


def windows(count):
    return np.repeat(np.arange(count, dtype=np.float32)[:, None], 100, axis=1)


def on_accelerator(size):
    batches = Batches("mps", 24_000)
    batches._sizes[100] = size
    return batches


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing():
    batches, device = on_accelerator(16), Accelerator(room=5)
    found = batches.run(windows(21), device)
    assert [value for part in found for value in part] == list(range(21))
    assert batches.size(100) == 4
    assert {size for size, _ in device.seen[2:]} == {4}              # 16 and 8 failed; all later batches have one size


def test_after_memory_runs_out_in_the_middle_the_rest_is_encoded():
    batches, device = on_accelerator(8), Accelerator(room=8)

    def forward(part, rows):
        if len(device.seen) == 1:
            device.room = 3              # another program took the memory
        return device(part, rows)

    found = batches.run(windows(20), forward)
    assert [value for part in found for value in part] == list(range(20))
    assert batches.size(100) == 2


def test_a_device_too_small_for_one_window_is_named():
    with pytest.raises(EncoderError, match="one window of 100 samples does not fit into the memory of mps"):
        on_accelerator(2).run(windows(3), Accelerator(room=0))


def test_every_batch_of_an_accelerator_is_full_so_that_kernels_are_equal():
    device = Accelerator(room=99)
    on_accelerator(8).run(windows(19), device)
    assert device.seen == [(8, 8), (8, 8), (8, 3)]
    device = Accelerator(room=99)
    Batches("mps", 24_000).run(windows(3), device)                   # a length that was not measured: one window per batch
    assert device.seen == [(1, 1)] * 3


def test_a_cpu_batch_holds_half_a_minute_and_is_not_filled_up():
    batches, device = Batches("cpu", 24_000), Accelerator(room=99)
    assert (batches.size(30 * 24_000), batches.size(5 * 24_000), batches.size(120 * 24_000)) == (1, 6, 1)
    batches._cpu_samples = 400
    batches.run(windows(6), device)
    assert device.seen == [(4, 4), (2, 2)]


def test_a_lower_precision_shares_all_weights_except_those_that_autocast_would_cast(checkpoints):
    exact = HubertEncoder(checkpoints / "95M-tiny")
    coarse = exact.at("bfloat16")
    mine, theirs = dict(exact._model.named_parameters()), dict(coarse._model.named_parameters())
    assert {t.dtype for t in mine.values()} == {torch.float32}
    lowered = [name for name in mine if mine[name] is not theirs[name]]
    assert lowered and all(theirs[name].dtype == torch.bfloat16 for name in lowered)
    assert not any(("conv" in name and "pos_conv" not in name) or "norm" in name for name in lowered)
    assert "encoder.pos_conv_embed.conv.weight" in lowered
    assert exact.at("float32") is exact
    with pytest.raises(EncoderError, match="Load it again"):
        coarse.at("float32")


def test_compiled_blocks_are_used_only_for_their_length_with_equal_results(checkpoints):
    encoder, plain = (HubertEncoder(checkpoints / "330M-tiny") for _ in range(2))
    calls = []

    def backend(graph, inputs):
        def run(*values):
            calls.append(1)
            return graph(*values)

        return run

    wave = melody(1.5, rate=24_000)[:, 0]
    compile_blocks(encoder._model, encoder.frames_of(24_000), backend=backend)
    compile_blocks(encoder._model, encoder.frames_of(24_000), backend=backend)          # a second time changes nothing
    with torch.no_grad():
        for samples, compiled in ((24_000, True), (30_000, False)):
            calls.clear()
            found, expected = encoder.encode(wave[None, :samples]), plain.encode(wave[None, :samples])
            assert bool(calls) == compiled
            for a, b in zip(found.mean, expected.mean, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)


# -- on a GPU, if there is one

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@gpu
def test_a_gpu_gives_the_results_of_the_cpu(checkpoints):
    wave = melody(6.5, rate=24_000)[:, 0]
    here = load_encoder(str(checkpoints / "95M-tiny"))
    there = load_encoder(str(checkpoints / "95M-tiny"), device="cuda")
    there.prepare(48_000)
    a, b = (encode_clips(encoder, [wave], 2.0, 1.5, frames=[1])[0] for encoder in (here, there))
    assert a.n_frames == b.n_frames
    np.testing.assert_allclose(a.frames[0], b.frames[0], atol=1e-2)
    for x, y in zip((*a.mean, *a.max), (*b.mean, *b.max), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-3)


@gpu
def test_on_a_gpu_a_clip_has_identical_bits_alone_and_in_any_batch(checkpoints):
    encoder = load_encoder(str(checkpoints / "95M-tiny"), device="cuda")
    encoder.prepare(48_000)
    waves = [melody(2.0, seed=seed, rate=24_000)[:, 0] for seed in range(9)]
    together = encode_clips(encoder, waves, 2.0)
    backwards = encode_clips(encoder, waves[::-1], 2.0)[::-1]
    for row, wave in enumerate(waves):
        alone = encode_clips(encoder, [wave], 2.0)[0]
        for layer in range(len(encoder.layers)):
            assert np.array_equal(alone.mean[layer], together[row].mean[layer])
            assert np.array_equal(alone.max[layer], backwards[row].max[layer])


@pytest.mark.parametrize(("room", "size"), [(0, None), (1, 1), (64, 8)])
def test_the_batch_size_is_computed_from_the_memory_of_one_and_two_windows(monkeypatch, room, size):
    """A simulated device: 100 MB for the first window, 50 MB for each further one, 600 MB free."""
    taken = []

    def forward(part):
        if len(part) > room:
            raise torch.OutOfMemoryError("out of memory")
        taken.append(50e6 + 50e6 * len(part))

    for name, answer in {
        "reset_peak_memory_stats": lambda device: None, "max_memory_allocated": lambda device: taken[-1],
        "mem_get_info": lambda device: (600e6, 80e9), "memory_reserved": lambda device: 0, "memory_allocated": lambda device: 0,
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    batches = Batches("cuda", 24_000)
    if size is None:
        with pytest.raises(EncoderError, match="one window of 100 samples does not fit into the memory of cuda"):
            batches.measure(100, forward)
    else:
        assert batches.measure(100, forward) == batches.size(100) == size
