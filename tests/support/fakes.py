"""Encoders and a lake whose vectors depend on content, so that swapped rows or layers fail a test."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.embed.encoders.base import Encoder, FrameSpan, Pooled
from tonelake.embed.settings import describe_space

FRAME = 100                              # samples


class FakeEncoder(Encoder):
    """Two layers of statistics of each frame of 100 samples; fast, and meaningless for music.

    `load_encoder("fakes:FakeEncoder")` loads it in any process that inherits this one's import path.
    """

    name = "fake"
    revision = "1"
    location = "fake"
    sample_rate = 8_000
    layers = ("low", "high")
    dims = (4, 6)
    default_layer = 1
    frame_samples = FRAME
    frame_offset = FRAME // 2

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        step = self.frame_samples
        framed = windows[:, : windows.shape[1] // step * step].reshape(len(windows), -1, step)
        spans = [slice(*span) for span in keep or [(0, None)] * len(windows)]
        means, maxima, kept = [], [], {}
        for layer, dim in enumerate(self.dims):
            weights = np.cos(np.outer(np.arange(step), np.arange(1, dim + 1)) * (layer + 1) / 9).astype(np.float32)
            states = [window[span] @ weights for window, span in zip(framed, spans, strict=True)]     # (frame, dim) each
            means.append(np.stack([s.mean(axis=0) for s in states]))
            maxima.append(np.stack([s.max(axis=0) for s in states]))
            kept[layer] = [s.astype(np.float16) for s in states]
        return Pooled(means, maxima, np.array([len(s) for s in states]), [kept[layer] for layer in frames])


class CoarseEncoder(FakeEncoder):
    """`FakeEncoder` with frames of 160 samples, at another rate, and one layer."""

    name = revision = "coarse"
    location = "fakes:CoarseEncoder"
    layers = ("whole",)
    dims = (5,)
    default_layer = 0
    frame_samples = 160
    frame_offset = 80


class TaggingFakeEncoder(FakeEncoder):
    """`FakeEncoder` with two tags: a clip is the louder the larger its first value of layer `high`."""

    name = "fake/Tagging"
    tags = ("loud", "quiet")
    tag_layers = ("high", "low")

    def score_tags(self, means: Sequence[np.ndarray]) -> np.ndarray:
        loud = 1 / (1 + np.exp(-means[0][:, 0]))
        return np.stack([loud, 1 - loud], axis=1).astype(np.float32)


class WordsEncoder(FakeEncoder):
    """The vectors of `FakeEncoder`, and words with vectors in layer `high`: random ones that depend on the word alone."""

    name = revision = "words"
    location = "fakes:WordsEncoder"
    text_layer = "high"
    text_scale = 5.0

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(list(prompt.encode())).standard_normal(6) for prompt in prompts])


class CollapsedEncoder(WordsEncoder):
    """Words that all have nearly the same vector."""

    name = revision = "collapsed"
    location = "fakes:CollapsedEncoder"

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        return super().encode_text(prompts) + 100


class TagsEncoder(FakeEncoder):
    """Scores of four tags, computed from the means of layer `low`."""

    name = revision = "tags"
    location = "fakes:TagsEncoder"
    tags = ("slow", "piano", "no vocals", "vocals")
    tag_layers = ("low",)

    def score_tags(self, means: Sequence[np.ndarray]) -> np.ndarray:
        return 1 / (1 + np.exp(-np.asarray(means[0], np.float32)))


class SlowFakeEncoder(FakeEncoder):
    """The vectors of `FakeEncoder` at 20 windows per second, so that a run can be stopped in the middle."""

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        time.sleep(0.05 * len(windows))
        return super().encode(windows, keep, frames)


def clip_rows(tracks: int, clips_a_track: int) -> pl.DataFrame:
    """Rows of clips without audio: 4 tracks an artist, 10 s clips every 5 s."""
    rows = [
        {
            "clip_id": f"{track * 1000 + clip:020x}", "track": f"track{track:03d}", "source": f"made:{track}",
            "digest": f"{track:032x}", "start_s": clip * 5.0, "duration_s": 10.0, "cut": "10s/5s",
            "title": f"Title {track}", "artist": f"Artist {track // 4}", "album": None, "year": 1960 + track,
            "tags": ["even" if track % 2 == 0 else "odd", f"tag{track % 3}"],
        }
        for track in range(tracks)
        for clip in range(clips_a_track)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def fill(lake, tracks: int, clips_a_track: int, seed: int, encoder: type[FakeEncoder] = FakeEncoder):
    """Add clips and vectors: tracks are close together in layer `low`, artists in layer `high`."""
    rows = clip_rows(tracks, clips_a_track)
    lake.clips.add(rows)
    space = lake.spaces.make(describe_space(encoder(), encoder.name, 30.0))
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(tracks), clips_a_track)
    near = {0: (track, 0.7), 1: (track // 4, 0.9)}
    layers = []
    for layer, dim in enumerate(space.dims):
        group, noise = near[layer]
        centres = rng.standard_normal((group.max() + 1, dim))
        layers.append((centres[group] + noise * rng.standard_normal((len(track), dim))).astype(np.float32))
    lake.vectors(space).add(rows["clip_id"].to_list(), layers, [v + 1 for v in layers], [750] * len(track))
    return space
