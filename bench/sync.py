"""A second ingest of many unchanged files, and the first ingest with recordings identified, compared with one that only
computes the digest of each file.  The figures are also added to `results/songs.json`.

    python -m bench.sync --files 10000
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from bench.ingest import make_files, timed
from bench.report import RESULTS, circumstances, table, write_results
from tonelake import ingest
from tonelake.ingest import decoder_pool
from tonelake.ingest.file_stamps import COARSE_NS
from tonelake.store import Lake

CLIP_S = 1.0
PLAIN = """
import sys
from tonelake.ingest import decoder_process
decoder_process.identify = lambda path, digest, skip: "b:" + digest
decoder_process.main()
"""
ROUNDS = 5


def make_short_files(folder: Path, files: int) -> None:
    """Write short files of noise, a hundred in each folder."""
    import numpy as np
    import soundfile as sf

    rng = np.random.default_rng(0)
    for number in range(files):
        path = folder / f"{number // 100:03d}" / f"{number % 100:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, 0.3 * rng.standard_normal(9_000), 8_000)


def first_ingests(home: Path, files: int, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds of first ingests, alternately with recordings identified and by the digest of the bytes alone."""
    folder = home / "long"
    make_files(folder, files, seconds)
    times: dict[str, list[float]] = {"audio": [], "bytes": []}
    usual = decoder_pool.DecoderPool.command
    for number in range(ROUNDS + 1):
        for name in times:
            decoder_pool.DecoderPool.command = usual if name == "audio" else (usual[0], "-P", "-c", PLAIN)
            took = timed(ingest.ingest_folder, Lake(home / f"lake-{name}-{number}"), folder)
            if number:                   # the first round warms the caches
                times[name].append(took)
    decoder_pool.DecoderPool.command = usual
    return times["audio"], times["bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--long", type=int, default=60, help="Number of files of two minutes for the first ingest.")
    arguments = parser.parse_args()
    about = circumstances("the audio (seeded noise)")
    with tempfile.TemporaryDirectory() as home:
        folder, lake = Path(home) / "music", Lake(Path(home) / "lake")
        make_short_files(folder, arguments.files)
        time.sleep(COARSE_NS / 1e9)      # recently written files are not trusted by their times
        first_s = timed(lambda: ingest.ingest_folder(lake, folder, seconds=CLIP_S))
        again_s = min(timed(lambda: ingest.ingest_folder(lake, folder, seconds=CLIP_S)) for _ in range(3))
        audio, digests = first_ingests(Path(home), arguments.long, 120.0)
    ratio = statistics.median(audio) / statistics.median(digests)
    rows = [
        [f"first ingest of {arguments.files:,} files of a second", f"{first_s:.1f}"],
        ["again, all unchanged", f"{again_s:.2f}"],
        [f"first ingest of {arguments.long} files of two minutes, recordings identified", f"{statistics.median(audio):.2f}"],
        ["the same by the digest of the bytes alone", f"{statistics.median(digests):.2f}"],
    ]
    text = table(["", "seconds"], rows)
    seconds = {"sync_again_10k_s" if arguments.files == 10_000 else f"sync_again_{arguments.files}_s": round(again_s, 3)}
    ratios = {"first_ingest_vs_before": ratio}
    write_results("sync", "Ingest as a sync", text, about, ratios, **seconds)
    add_to_songs(ratios, seconds)
    print(text)


def add_to_songs(ratios: dict[str, float], seconds: dict[str, float]) -> None:
    """Add figures to the results about songs; `bench.songs` writes the others."""
    file = RESULTS / "songs.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    found["ratios"] = found.get("ratios", {}) | {name: round(value, 3) for name, value in ratios.items()}
    file.write_text(json.dumps(found | seconds, indent=2) + "\n")


if __name__ == "__main__":
    main()
