"""Ingest: the first run, a second run, and a second run that reads every byte, compared with a loop over the same files.

The loop does what a notebook would: librosa.load at the encoder's rate, cut into clips of 30 s, check the peak, one file after
another; it stores nothing.  Ingest decodes at the file's own rate and stores the clips; in the second run all files are known.

    python -m bench.ingest --files 120 --seconds 120
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.report import circumstances, table, write_results
from tonelake import ingest
from tonelake.embed.librosa_import import load_librosa
from tonelake.ingest.file_stamps import COARSE_NS
from tonelake.store import Lake

RATE, ENCODERS_RATE, CLIP_S = 44_100, 24_000, 30.0
SUFFIXES = (".wav", ".flac", ".mp3")


def make_files(folder: Path, files: int, seconds: float) -> int:
    """Write stereo noise with a melody's envelope, a third of the files in each format; return their size in bytes."""
    import soundfile as sf

    folder.mkdir()
    for number in range(files):
        rng = np.random.default_rng(number)
        loud = np.repeat(rng.random(round(seconds * 4)), RATE // 4)[:, None]
        sound = 0.3 * loud * rng.standard_normal((len(loud), 2))
        sf.write(folder / f"{number:05d}{SUFFIXES[number % len(SUFFIXES)]}", sound, RATE)
    return sum(path.stat().st_size for path in folder.iterdir())


def loop(folder: Path) -> int:
    """Run the loop; return the number of clips."""
    librosa = load_librosa()
    clips = 0
    for path in sorted(folder.iterdir()):
        wave, _ = librosa.load(path, sr=ENCODERS_RATE)
        step = round(CLIP_S * ENCODERS_RATE)
        clips += sum(np.abs(wave[begin : begin + step]).max() > 0 for begin in range(0, len(wave), step))
    return clips


def timed(work, *arguments) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    about = circumstances("the audio (seeded noise)")
    with tempfile.TemporaryDirectory() as home:
        folder, lake = Path(home) / "music", Lake(Path(home) / "lake")
        size = make_files(folder, arguments.files, arguments.seconds)
        time.sleep(COARSE_NS / 1e9)          # recently written files are not trusted by their times

        def again() -> None:
            report = ingest.ingest_folder(lake, folder, seconds=CLIP_S)
            assert report.added.known == lake.clips.count() and report.failed == 0

        load_librosa().load(next(folder.iterdir()), sr=ENCODERS_RATE, duration=1.0)          # deferred imports, not timed
        loop_s, first_s = timed(loop, folder), timed(ingest.ingest_folder, lake, folder, seconds=CLIP_S)
        again_s = min(timed(again) for _ in range(3))
        lake.paths.forget_stamps(lake.paths.read(["source"])["source"].to_list())
        bytes_s = timed(again)
        digest_s = timed(lambda: hashlib.blake2b(bytes(1 << 28), digest_size=16).digest()) * size / (1 << 28)
    hours = arguments.files * arguments.seconds / 3600
    rows = [
        [name, f"{seconds:.2f}", f"{hours * 3600 / seconds:,.0f}", f"{size / 1e6 / seconds:,.0f}", f"{loop_s / seconds:.1f}"]
        for name, seconds in (
            ("librosa loop, 24 kHz", loop_s), ("first ingest", first_s), ("again, every byte read", bytes_s),
            ("again", again_s),
        )
    ]
    ratios = {"first_vs_loop": loop_s / first_s, "again_vs_loop": loop_s / again_s, "again_vs_reading": bytes_s / again_s}
    text = (
        f"{arguments.files} files of {arguments.seconds:g} s, a third each of {', '.join(SUFFIXES)}: {hours:.1f} hours, "
        f"{size / 1e6:,.0f} MB, cached in memory, so no time is spent on the disk.  Limit of reading: a digest of "
        f"these bytes takes one core {digest_s:.1f} s.  The loop is a notebook's: librosa.load at the encoder's rate, cut "
        "into clips of 30 s, check the peak, one file after another in one process; it stores nothing.\n\n"
        + table(["", "seconds", "audio seconds a second", "MB a second", "times the loop"], rows)
    )
    write_results("ingest", "Ingest, first and second run", text, about, ratios)
    print(text)


if __name__ == "__main__":
    main()
