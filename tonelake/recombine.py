"""Play a continuation: its stretches of the lake's own audio joined into one sound, or its gestures as notes.

Stretches are cut at rising zero crossings near their ends and cross-faded with constant power, so that a join neither clicks
nor dips.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake.index import find_vocabulary
from tonelake.probes import write_midi
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.lake import Lake

RATE = 44_100                            # Hz
FADE_S = 0.01
NEAR_S = 0.01                            # how far a cut may move to a zero crossing: half a period of 50 Hz
QUIETEST_DB = 60.0                       # below full scale, of a note of velocity 1


def recombine(lake: Lake, path: pl.DataFrame, rate: int = RATE) -> np.ndarray:
    """Return the audio of a continuation: (samples,) float32 at `rate` Hz.

    `path`: rows of `continuation`.  Raises AudioError if a clip cannot be read.
    """
    parts = []
    for clip_id, start_s, end_s in stretches(path):
        first_s = max(0.0, start_s - NEAR_S)
        margin_s = NEAR_S + FADE_S
        samples = lake.audio(clip_id, rate, start=first_s, seconds=end_s - first_s + margin_s)
        parts.append(cut(samples, round((start_s - first_s) * rate), round((end_s - first_s) * rate), rate))
    return cross_fade(parts, round(FADE_S * rate))


def stretches(path: pl.DataFrame) -> list[tuple[str, float, float]]:
    """Return (clip, start, end in seconds) of the events of a path, joined where it follows its clip without a gap."""
    found: list[tuple[str, float, float]] = []
    for clip_id, start_s, end_s in path.select("clip_id", "start_s", "end_s").iter_rows():
        if found and found[-1][0] == clip_id and abs(found[-1][2] - start_s) < 1e-6:
            found[-1] = (clip_id, found[-1][1], end_s)
        else:
            found.append((clip_id, start_s, end_s))
    return found


def cut(samples: np.ndarray, first: int, last: int, rate: int) -> np.ndarray:
    """Return the samples from the rising zero crossing nearest to `first` to that nearest to `last`, and FADE_S after it."""
    near = round(NEAR_S * rate)
    begin, end = (nearest_crossing(samples, at, near) for at in (first, last))
    if end <= begin:
        begin, end = first, last
    return samples[begin : end + round(FADE_S * rate)]


def nearest_crossing(samples: np.ndarray, at: int, near: int) -> int:
    """Return the index at most `near` from `at` of the first sample after the nearest rise through 0; `at` without one."""
    first = max(1, at - near)
    part = samples[first - 1 : at + near + 1]
    rises = first + np.flatnonzero((part[:-1] < 0) & (part[1:] >= 0))
    return int(rises[np.abs(rises - at).argmin()]) if len(rises) else at


def cross_fade(parts: list[np.ndarray], fade: int) -> np.ndarray:
    """Return parts in sequence, the last `fade` samples of each under the first of the next, at constant power.

    A part shorter than twice the fade has a shorter one, and the end of the last part fades out.
    """
    lengths = [len(part) for part in parts]
    sound = np.zeros(sum(lengths), np.float32)
    at = before = 0
    for i, part in enumerate(parts):
        after = min(fade, lengths[i] // 2, lengths[i + 1] // 2 if i + 1 < len(parts) else fade)
        gain = np.ones(len(part), np.float32)
        gain[:before] *= np.sin(np.pi / 2 * (np.arange(before) + 0.5) / max(before, 1))
        gain[len(part) - after :] *= np.cos(np.pi / 2 * (np.arange(after) + 0.5) / max(after, 1))
        sound[at : at + len(part)] += gain * part
        at += len(part) - after
        before = after
    return sound[: at + before]


def notes_of_path(
    lake: Lake, path: pl.DataFrame, vocabulary: str | None = None, *, space: str | None = None
) -> pl.DataFrame:
    """Return the events of a continuation as notes, with times from its beginning: what `probes.write_midi` takes.

    Pitch and loudness are those of the stored gesture in which an event begins; events without a pitch are left out.
    Raises InputError if a clip has no gestures.
    """
    chosen = find_vocabulary(lake, vocabulary, space=space)
    ids = path["clip_id"].unique().sort().to_list()
    gestures = lake.gestures(chosen.space).read(chosen.digest, ids, ["start_s", "pitch", "loudness"])
    without = sorted(set(ids).difference(gestures["clip_id"]))
    if without:
        raise InputError(
            f"clip {without[0]} has no gestures in {chosen.name}, whose pitches are the notes. Run "
            f"`tonelake tokens gestures {chosen.name}`"
        )
    length = pl.col("end_s") - pl.col("start_s")
    events = path.select("step", "clip_id", "start_s", length=length, at=length.cum_sum() - length)
    # The gesture's start moves back a little: equal times must match whatever their last digit.
    known = gestures.with_columns(pl.col("start_s") - 1e-6).sort("start_s")
    events = events.sort("start_s").join_asof(known, on="start_s", by="clip_id", check_sortedness=False)
    velocity = (1 + 126 * (1 + pl.col("loudness") / QUIETEST_DB)).round().clip(1, 127).cast(pl.Int32)
    return events.sort("step").drop_nulls("pitch").select(
        kind=pl.lit("note"), start_s="at", end_s=pl.col("at") + pl.col("length"), value=pl.lit("tonelake"),
        pitch=pl.col("pitch").round(), velocity=velocity,
    )


def velocity_of(loudness: float | None) -> int:
    """Return the MIDI velocity of a loudness in dB re full scale: that of `notes_of_path`, and 80 if it is unknown.

    >>> velocity_of(0.0), velocity_of(-30.0), velocity_of(-90.0)
    (127, 64, 1)
    """
    return 80 if loudness is None else min(127, max(1, round(1 + 126 * (1 + loudness / QUIETEST_DB))))


def write_continuation(
    lake: Lake, path: pl.DataFrame, vocabulary: str | None = None, *, space: str | None = None, wav: Path | None = None,
    midi: Path | None = None,
) -> list[str]:
    """Write a continuation as audio and as MIDI, where a file is given; return a sentence for each file.

    Raises AudioError if a clip cannot be read, InputError if a file cannot be written or a clip has no gestures.
    """
    said = []
    if wav is not None:
        sound = recombine(lake, path)
        write_wav(sound, RATE, wav)
        said.append(f"{wav}: {len(sound) / RATE:.1f} s from {len(stretches(path))} stretches of clips")
    if midi is not None:
        notes = notes_of_path(lake, path, vocabulary, space=space)
        try:
            count = write_midi(notes, midi)
        except OSError as error:
            raise InputError(f"{midi}: cannot be written ({error.strerror or error}). Choose another file") from error
        silent = len(path) - count
        said.append(f"{midi}: {count} notes" + (f"; {silent} events have no pitch" if silent else ""))
    return said


def write_wav(samples: np.ndarray, rate: int, path: Path) -> None:
    """Write (samples,) as a WAV file of 16 bits.  Raises InputError if it cannot be written."""
    import soundfile

    try:
        soundfile.write(str(path), np.clip(samples, -1, 1), rate, format="WAV", subtype="PCM_16")
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be written ({error}). Choose another file") from error
