"""The Ray engine on one machine against the local engine: start-up, seconds and processor seconds a clip.

Both embed the same lakes with a model of MERT's shape and random weights, each run in a process of its own, `embed_lake` from
its call to its return: imports, weights, decoding and storing.  The precision is fixed, and the choice of kernels kept from the
first run, since beside other work measurements would choose differently from run to run.  The engines alternate.  A lake of FEW
clips and one of more tell the cost of a clip from the start-up:

    clip = (seconds of many - seconds of few) / (many - few)         start-up = seconds of few - few * clip

Processor seconds are those of the process and of all that it starts, Ray's own included.

    python -m bench.ray --clips 16 --seconds 30 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.embed import make_checkpoint, make_music
from bench.memory import children_of
from bench.report import circumstances, table, write_results

ENGINES = ("local", "ray")
FEW = 2                                  # clips; each processor of a small machine has one
NARROW = Path(__file__).parent.parent / "tests" / "data" / "mert" / "95M-tiny"
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class ProcessorSeconds:
    """Sums the processor time of this process and its descendants; what one uses in its last `every_s` is not seen."""

    def __init__(self, every_s: float = 0.5) -> None:
        self._known: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(every_s,), daemon=True)
        self._thread.start()

    def _watch(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            self._look()

    def _look(self) -> None:
        for pid in (os.getpid(), *children_of(os.getpid())):
            self._known[pid] = max(self._known.get(pid, 0.0), processor_s(pid))

    def total(self) -> float:
        """End watching, and return the sum."""
        self._ended.set()
        self._thread.join()
        self._look()
        return sum(self._known.values())


def processor_s(pid: int) -> float:
    """Return the processor seconds of a process; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND      # in user mode and in the system


def be_process(arguments: argparse.Namespace) -> None:
    """Embed a copy of a lake by one engine; print seconds, processor seconds and the number of clips as JSON."""
    from tonelake.embed import EmbedSettings, cpu_has_bfloat16, embed_lake
    from tonelake.ingest import read_clips
    from tonelake.store import Lake

    lake = Lake(arguments.lake)
    settings = EmbedSettings(
        str(arguments.checkpoint), space="bench", window_s=arguments.seconds, device="cpu",
        precision="bfloat16" if cpu_has_bfloat16() else "float32",
    )
    watch, before, started = ProcessorSeconds(), time.process_time(), time.perf_counter()
    report = embed_lake(lake, settings, read_clips, engine=arguments.engine)
    seconds = time.perf_counter() - started
    assert not report.failed, report
    print(json.dumps({"clips": report.new, "seconds": seconds, "cpu_s": watch.total() - before}))


def make_lake(home: Path, clips: int, seconds: float) -> Path:
    """Make a lake of clips of this length, not embedded; return its folder."""
    from tonelake import ingest
    from tonelake.store import Lake

    make_music(home / f"music-{clips}", clips)
    lake = Lake(home / f"lake-{clips}")
    ingest.ingest_folder(lake, home / f"music-{clips}", seconds=seconds, per_track=1)
    assert lake.clips.count() == clips
    return Path(lake.uri)


def measure(home: Path, checkpoint: Path, lake: Path, engine: str, seconds: float) -> dict[str, float]:
    """Embed a copy of a lake in a new process; return what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(lake, Path(folder) / "lake")
        done = subprocess.run(
            [sys.executable, "-m", "bench.ray", "--engine", engine, "--lake", str(copy), "--checkpoint", str(checkpoint),
             "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True, check=True,
            env=os.environ | {"TONELAKE_CACHE": str(home / "cache")},
        )
    return json.loads(done.stdout.splitlines()[-1])


def cost_of(few: dict[str, float], many: dict[str, float], kind: str) -> tuple[float, float]:
    """Return (start-up, cost of a clip) in seconds of this kind: `seconds` or `cpu_s`."""
    clip = (many[kind] - few[kind]) / (many["clips"] - few["clips"])
    return few[kind] - few["clips"] * clip, clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["95M", "tiny"], default="95M")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--lake", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        be_process(arguments)
        return
    runs: dict[str, dict[int, list[dict[str, float]]]] = {engine: {FEW: [], arguments.clips: []} for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        checkpoint = NARROW if arguments.model == "tiny" else make_checkpoint(home / "MERT", arguments.model)
        lakes = {clips: make_lake(home, clips, arguments.seconds) for clips in (FEW, arguments.clips)}
        measure(home, checkpoint, lakes[FEW], "local", arguments.seconds)                           # chooses kernels
        for number in range(arguments.rounds):
            for clips, lake in lakes.items():
                for engine in ENGINES if number % 2 else ENGINES[::-1]:
                    runs[engine][clips].append(measure(home, checkpoint, lake, engine, arguments.seconds))
                    print(f"round {number + 1}: {engine}, {runs[engine][clips][-1]}", file=sys.stderr)
    write(runs, arguments)


def write(runs: dict[str, dict[int, list[dict[str, float]]]], arguments: argparse.Namespace) -> None:
    """Write the report: the fastest of the rounds, since other work only slows a run."""
    best: dict[str, Any] = {
        engine: {clips: {kind: min(run[kind] for run in found) for kind in found[0]} for clips, found in sizes.items()}
        for engine, sizes in runs.items()
    }
    rows, costs = [], {}
    for engine in ENGINES:
        few, many = best[engine][FEW], best[engine][arguments.clips]
        costs[engine] = {kind: cost_of(few, many, kind) for kind in ("seconds", "cpu_s")}
        rows.append([
            engine, f"{few['seconds']:.1f}", f"{many['seconds']:.1f}", *(f"{value:.2f}" for value in costs[engine]["seconds"]),
            f"{many['cpu_s']:.1f}", *(f"{value:.2f}" for value in costs[engine]["cpu_s"]),
        ])
    ratios = {
        f"{name}_ray_vs_local": costs["ray"][kind][which] / costs["local"][kind][which]
        for name, kind, which in (("clip_s", "seconds", 1), ("clip_cpu_s", "cpu_s", 1), ("start_cpu_s", "cpu_s", 0))
    }
    ratios["total_ray_vs_local"] = best["ray"][arguments.clips]["seconds"] / best["local"][arguments.clips]["seconds"]
    ratios["start_up_s_ray"], ratios["start_up_s_local"] = costs["ray"]["seconds"][0], costs["local"]["seconds"][0]
    header = [
        "engine", f"{FEW} clips, s", f"{arguments.clips} clips, s", "start-up, s", "s a clip",
        f"{arguments.clips} clips, CPU s", "start-up, CPU s", "CPU s a clip",
    ]
    text = (
        f"Clips of {arguments.seconds:g} s, one window each, model {arguments.model}, best of {arguments.rounds} rounds. "
        "Seconds grow where other work shares the processors; CPU seconds hardly do.\n\n"
        f"{table(header, rows)}"
    )
    name = "ray" if arguments.model == "95M" else f"ray_{arguments.model}"
    about = circumstances("the weights and the audio (seeded); speed only, never quality")
    write_results(name, "The Ray engine on one machine", text, about, ratios, runs=runs)
    print(f"bench/results/{name}.md and .json are written")


if __name__ == "__main__":
    main()
