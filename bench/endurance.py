"""Endurance: one process ingests and embeds 100,000 clips and answers 10,000 queries; its resources over time.

Memory, open files, temporary files and the lake's size are sampled every half second.  Clips are one second long, twenty to a
file, and embedded by the tests' MERT of three narrow blocks with random weights: the pipeline is measured, not the model.

    python -m bench.endurance --clips 100000 --queries 10000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from bench.growth import CHECKPOINT, make_files
from bench.memory import children_of, resident_mb
from bench.report import RESULTS, circumstances, table, write_results

CLIPS_A_FILE = 20
EVERY_S, KEPT = 0.5, 400                 # seconds between samples, and samples kept for each phase
PHASES = ("ingest", "embed", "query")


class Watch:
    """Sample this process's resources every half second, by phase."""

    def __init__(self, lake: Path, temporary: Path) -> None:
        self.lake, self.temporary = lake, temporary
        self.samples: dict[str, list[dict[str, float]]] = {phase: [] for phase in PHASES}
        self.phase, self.began = "", time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def start(self, phase: str) -> None:
        self.phase, self.began = phase, time.monotonic()

    def stop(self) -> None:
        self.phase = ""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        disk, looked = 0.0, -10.0
        while not self._ended.wait(EVERY_S):
            phase, now = self.phase, time.monotonic()
            if not phase:
                continue
            if now - looked > 5:         # walking a lake takes time
                disk, looked = megabytes_below(self.lake), now
            self.samples[phase].append({
                "s": now - self.began,
                "memory_mb": resident_mb(os.getpid()),
                "children_mb": sum(resident_mb(pid) for pid in children_of(os.getpid())),
                "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
                "temporary": files_below(self.temporary, "*") + files_below(self.lake, ".*.tmp"),
                "disk_mb": disk,
            })


def files_below(folder: Path, pattern: str) -> int:
    return sum(1 for path in folder.rglob(pattern) if path.is_file())


def megabytes_below(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:                  # removed meanwhile by a merge
            continue
    return total / 1e6


def be_run(clips: int, queries: int, folder: Path) -> None:
    """Do all the work in a separate process; print the samples and the disk usage as JSON."""
    import tonelake
    from tonelake import ingest
    from tonelake.store.compaction import optimize, spare_share

    music, watch = folder / "music", Watch(folder / "lake", Path(tempfile.gettempdir()))
    lake = tonelake.open(folder / "lake", progress=False)
    watch.start("ingest")
    ingest.ingest_folder(lake, music, seconds=1.0, hop=0.1)
    watch.start("embed")
    report = lake.embed(str(CHECKPOINT), space="tiny", precision="float32", device="cpu")
    assert report.new == clips, report
    spare = spare_share(lake.vectors("tiny").table)
    watch.start("query")
    ask(lake, music, queries)
    watch.stop()
    before = megabytes_below(folder / "lake")
    optimize(lake, keep_minutes=0)
    print(json.dumps({
        "samples": watch.samples, "spare_vectors": spare, "disk_mb": before, "live_mb": megabytes_below(folder / "lake"),
    }))


def ask(lake, music: Path, queries: int) -> None:
    """Run queries of every kind: by a clip at each layer, with a filter, with a mixture of layers, and by a file."""
    ids = lake.clips.read()["clip_id"].to_list()
    files = sorted(music.iterdir())
    rng = np.random.default_rng(0)
    for number, clip in enumerate(rng.choice(ids, queries).tolist()):
        if number % 100 == 0:
            found = lake.similar(files[number % len(files)], layer=1, k=10)
        elif number % 10 == 1:
            found = lake.similar(clip, layer=2, k=10, where=f"start_s < {rng.uniform(0.3, 1.5):.2f}")
        elif number % 10 == 2:
            found = lake.similar(clip, layers={1: 0.5, 2: 0.5}, k=10)
        else:
            found = lake.similar(clip, layer=number % 3, k=10)
        assert len(found) == 10, (number, clip, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        be_run(arguments.clips, arguments.queries, arguments.run)
        return
    about = circumstances("the audio and the queries (seeded), and the weights of a model of three narrow blocks")
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder) / "music", arguments.clips, CLIPS_A_FILE)
        temporary = Path(folder) / "tmp"
        temporary.mkdir()
        command = [sys.executable, "-m", "bench.endurance", "--run", folder, "--clips", str(arguments.clips)]
        done = subprocess.run(
            [*command, "--queries", str(arguments.queries)], stdout=subprocess.PIPE, text=True, check=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        left = files_below(temporary, "*")
    found = json.loads(done.stdout.splitlines()[-1])
    report(found, left, arguments.clips, arguments.queries, about)
    print("bench/results/endurance.md, .json and .png are written")


def stretch(samples: list[dict[str, float]], name: str, begin: float, end: float) -> float:
    """Return the median of the samples between two fractions of a phase."""
    part = samples[int(begin * len(samples)) : max(int(end * len(samples)), int(begin * len(samples)) + 1)]
    return float(np.median([sample[name] for sample in part]))


def report(found: dict, left: int, clips: int, queries: int, about: dict[str, str]) -> None:
    rows, ratios = [], {}
    for phase in PHASES:
        samples = found["samples"][phase]
        early, late = (stretch(samples, "memory_mb", *part) for part in ((0.2, 0.4), (0.8, 1.0)))
        ratios[f"{phase}_memory_late_vs_early"] = late / early
        ratios[f"{phase}_files_late_minus_early"] = stretch(samples, "files", 0.8, 1) - stretch(samples, "files", 0.2, 0.4)
        rows.append([
            phase, f"{samples[-1]['s']:.0f}", f"{early:.0f}", f"{late:.0f}", f"{max(s['memory_mb'] for s in samples):.0f}",
            f"{max(s['children_mb'] for s in samples):.0f}",
            f"{stretch(samples, 'files', 0.2, 0.4):.0f}", f"{stretch(samples, 'files', 0.8, 1):.0f}",
            f"{max(s['temporary'] for s in samples):.0f}",
        ])
    ratios["disk_vs_live"] = found["disk_mb"] / found["live_mb"]
    header = [
        "phase", "seconds", "memory, second fifth, MB", "last fifth, MB", "peak, MB", "its processes, peak, MB",
        "open files, second fifth", "last fifth", "temporary files, maximum",
    ]
    draw(found["samples"], clips, queries)
    text = (
        f"{clips:,} clips ingested and embedded, {queries:,} queries, in one process.  At its end {left} temporary files "
        f"remained.  The lake took {found['disk_mb']:.0f} MB; its newest versions take {found['live_mb']:.0f} MB "
        f"({ratios['disk_vs_live']:.2f} x; only the embedding's own clean-up had run).\n\n{table(header, rows)}\n"
        "![memory, open files, temporary files and disk over time](endurance.png)"
    )
    kept = {
        phase: [
            {name: round(value, 1) for name, value in sample.items()}
            for sample in samples[:: max(1, len(samples) // KEPT)]
        ]
        for phase, samples in found["samples"].items()
    }
    write_results("endurance", "Endurance", text, about, ratios, left=left, samples=kept)


def draw(phases: dict[str, list[dict[str, float]]], clips: int, queries: int) -> None:
    """Plot the samples: a column for each phase, a row for each quantity."""
    from matplotlib.figure import Figure

    quantities = {"memory_mb": "memory, MB", "files": "open files", "temporary": "temporary files", "disk_mb": "lake, MB"}
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(len(quantities), len(PHASES), squeeze=False, sharex="col")
    for column, phase in enumerate(PHASES):
        samples = phases[phase]
        seconds = [sample["s"] for sample in samples]
        for row, (name, label) in enumerate(quantities.items()):
            axis = axes[row][column]
            axis.plot(seconds, [sample[name] for sample in samples], linewidth=1, label="this process")
            if name == "memory_mb":
                axis.plot(seconds, [sample["children_mb"] for sample in samples], linewidth=1, label="its processes")
                axis.legend(loc="lower right", fontsize=7)
            axis.set_ylim(bottom=0)
            if not column:
                axis.set_ylabel(label)
        title = f"{queries:,} queries" if phase == "query" else f"{phase} of {clips:,} clips"
        axes[0][column].set_title(title, fontsize=10)
        axes[-1][column].set_xlabel("seconds")
    figure.savefig(RESULTS / "endurance.png", dpi=110)


if __name__ == "__main__":
    main()
