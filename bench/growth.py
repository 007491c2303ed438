"""Growth: time and memory of ingest and embed for 1,000, 10,000 and 100,000 clips.

Clips are one second long, cut every tenth of a second from synthetic files, and embedded by the tests' MERT of three narrow
blocks with random weights, which is small enough that the pipeline is measured and not the model.

    python -m bench.growth --clips 1000 10000 100000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.memory import PeakMemory
from bench.report import circumstances, table, write_results

CHECKPOINT = Path(__file__).parent.parent / "tests" / "data" / "mert" / "95M-tiny"
CLIPS_A_FILE, RATE = 1_000, 24_000


def make_files(folder: Path, clips: int, clips_a_file: int) -> None:
    """Write mono WAV files, each long enough for the given number of one-second clips, one every tenth of a second."""
    import soundfile as sf

    folder.mkdir()
    for seed in range(clips // clips_a_file):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal(round((clips_a_file / 10 + 0.9) * RATE)).cumsum()
        sf.write(folder / f"{seed:05d}.wav", 0.5 * noise / np.abs(noise).max(), RATE)


def be_run(clips: int) -> None:
    """Measure one size in a separate process; print times and memory as JSON."""
    from tonelake import ingest
    from tonelake.embed import EmbedSettings, embed_clips, open_space
    from tonelake.store import Lake

    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder) / "music", clips, CLIPS_A_FILE)
        lake, memory = Lake(Path(folder) / "lake"), PeakMemory()
        started = time.perf_counter()
        ingest.ingest_folder(lake, Path(folder) / "music", seconds=1.0, hop=0.1)
        ingested = time.perf_counter()
        after_ingest = memory.mb
        space, encoder = open_space(lake, EmbedSettings(str(CHECKPOINT), precision="float32", device="cpu"))
        before = time.process_time()
        report = embed_clips(lake, space, encoder, ingest.read_clips)
        after_embed, busy = memory.mb, time.process_time() - before
        embedded = time.perf_counter()
        vectors = lake.vectors(space)
        vectors.layer(1)
        read = time.perf_counter()
        assert report.new == len(vectors.ids()) == clips, report
        disk = sum(file.stat().st_size for file in Path(lake.uri).rglob("*") if file.is_file())
        print(json.dumps({
            "clips": clips, "ingest_s": ingested - started, "embed_s": embedded - ingested, "embed_cpu_s": busy,
            "read_layer_s": read - embedded, "peak_ingest_mb": after_ingest, "peak_mb": after_embed, "lake_mb": disk / 1e6,
        }))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        be_run(arguments.run)
        return
    about = circumstances("the audio (seeded) and the weights of a model of three narrow blocks")
    found = []
    for clips in arguments.clips:
        command = [sys.executable, "-m", "bench.growth", "--run", str(clips)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(found[-1], file=sys.stderr)
    rows = [
        [
            f"{run['clips']:,}", f"{run['ingest_s']:.1f}", f"{1000 * run['ingest_s'] / run['clips']:.2f}",
            f"{run['embed_s']:.1f}", f"{1000 * run['embed_s'] / run['clips']:.2f}",
            f"{1000 * run['embed_cpu_s'] / run['clips']:.2f}",
            f"{run['peak_ingest_mb']:.0f}", f"{run['peak_mb']:.0f}", f"{1000 * run['read_layer_s']:.0f}",
            f"{run['lake_mb']:.0f}",
        ]
        for run in found
    ]
    header = [
        "clips", "ingest, s", "ms a clip", "embed, s", "ms a clip", "CPU ms a clip", "peak after ingest, MB",
        "peak after embed, MB", "read a layer, ms", "lake, MB",
    ]
    first, last = found[0], found[-1]
    ratios = {
        "embed_ms_a_clip_last_vs_first": (last["embed_s"] / last["clips"]) / (first["embed_s"] / first["clips"]),
        "embed_cpu_ms_a_clip_last_vs_first": (last["embed_cpu_s"] / last["clips"]) / (first["embed_cpu_s"] / first["clips"]),
        "ingest_ms_a_clip_last_vs_first": (last["ingest_s"] / last["clips"]) / (first["ingest_s"] / first["clips"]),
        "peak_last_vs_first": last["peak_mb"] / first["peak_mb"],
    }
    text = (
        "One process and its decoder; peak memory is that of both, CPU time that of the former (if other work shares the "
        f"cores, seconds grow and CPU time hardly does).\n\n{table(header, rows)}"
    )
    write_results("growth", "Growth with the number of clips", text, about, ratios, runs=found)
    print("bench/results/growth.md and .json are written")


if __name__ == "__main__":
    main()
