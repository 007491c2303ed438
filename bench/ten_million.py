"""Ten million clips, by simulation: time, memory, disk and requests, measured on smaller lakes and extrapolated.

Three kinds of lakes of made-up clips, each run in a process of its own (`bench.ten_million_runs`):
- catalogue: short vectors, up to ten million rows: what grows with the number of clips alone;
- vectors: 768 dimensions as MERT has them, up to a million rows: indexes, scans, and the disk that vectors take;
- away: 768 dimensions on moto: the requests of a build and of a query.

Finished runs are kept in a folder, and a second call measures only what is missing there.

    python -m bench.ten_million --work FOLDER
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.report import RESULTS, circumstances, table, write_results

TARGET = 10_000_000
CATALOGUE, VECTORS, AWAY = (100_000, 1_000_000, TARGET), (30_000, 100_000, 300_000, 1_000_000), (20_000, 60_000)
NAMED = 1_000_000                        # clips of the largest lake whose songs are searched by name
NARROW_DIM, DIM, LAYERS = 32, 768, 13
SECONDS = 30.0                           # of a clip
KIND = "ivf-rabitq"                      # of FAISS, which `auto` chooses above a million
GROWTH: dict[str, Callable[[float], float]] = {
    "constant": lambda rows: 1.0, "n": lambda rows: rows, "n log n": lambda rows: rows * math.log(rows),
    "log n": math.log, "√n": math.sqrt, "n√n": lambda rows: rows**1.5,
}


class Estimate(NamedTuple):
    """A value at TARGET rows, and the lowest and highest that the measured ones allow."""

    value: float
    low: float
    high: float


def extrapolate(rows: Sequence[int], values: Sequence[float], growth: str, target: int = TARGET) -> Estimate:
    """Return the value at `target` rows; measured there, it is exact.

    The value is that of a + b·growth(rows), fitted to relative errors.  The range is that of this fit, of proportional growth
    from the largest size, and of the power law through the last two sizes.

    >>> [round(value) for value in extrapolate([100, 1_000], [1.0, 10.0], "n", 10_000)]
    [100, 100, 100]
    """
    if target in rows:
        return Estimate(*[values[list(rows).index(target)]] * 3)
    grown, size = np.array([GROWTH[growth](count) for count in rows]), GROWTH[growth](target)
    scale = 1 / np.maximum(np.array(values), 1e-12)
    proportional = values[-1] * size / grown[-1]
    if len(rows) == 1 or growth == "constant":
        return Estimate(values[-1], min(values), max(values)) if growth == "constant" else Estimate(*[proportional] * 3)
    start, slope = np.linalg.lstsq(np.stack([scale, grown * scale], axis=1), np.ones(len(rows)), rcond=None)[0]
    found = [proportional if slope < 0 else max(float(start + slope * size), 0.0), proportional]
    if min(values[-2:]) > 0:
        slope = math.log(values[-1] / values[-2]) / math.log(rows[-1] / rows[-2])
        found.append(values[-1] * (target / rows[-1]) ** slope)
    return Estimate(found[0], min(found), max(found))


class Figure(NamedTuple):
    """One row of the table: a value of runs of one kind, and how it grows."""

    name: str
    run: str                             # catalogue, vectors or away
    key: str
    growth: str
    unit: str
    factor: float = 1.0                  # from the measured value to the unit


FIGURES = (
    Figure("write clips", "catalogue", "clips_cpu_s", "n", "CPU min", 1 / 60),
    Figure("one more commit of 2,000 clips", "catalogue", "commit_clips_cpu_s", "n", "CPU s"),
    Figure("one more commit of 500 vectors", "catalogue", "commit_vectors_cpu_s", "n", "CPU s"),
    Figure("table of clips on disk", "catalogue", "clips_mb", "n", "GB", 1e-3),
    Figure("first search in a new process, short vectors", "catalogue", "first_search_cpu_s", "n log n", "CPU s"),
    Figure("search by a clip, median, short vectors", "catalogue", "search_ms", "√n", "ms"),
    Figure("search by a clip, 99th percentile", "catalogue", "search_p99_ms", "√n", "ms"),
    Figure("search, a filter keeps half, first", "catalogue", "wide_first_ms", "n", "ms"),
    Figure("search, a filter keeps half, later", "catalogue", "wide_ms", "n", "ms"),
    Figure("search, a filter keeps 1.3 %, first", "catalogue", "narrow_first_ms", "n", "ms"),
    Figure("search, a filter keeps 1.3 %, later", "catalogue", "narrow_ms", "n", "ms"),
    Figure("search, other artists only", "catalogue", "other_artist_ms", "n", "ms"),
    Figure("`status`", "catalogue", "status_cpu_s", "n log n", "CPU s"),
    Figure("columns that have values", "catalogue", "group_columns_cpu_s", "n", "CPU s"),
    Figure("memory of a process that searches, beside the vectors", "catalogue", "resident_mb", "n", "GB", 1e-3),
    Figure("names of songs: made once", "catalogue", "names_cpu_s", "n", "CPU min", 1 / 60),
    Figure("names of songs on disk", "catalogue", "names_mb", "n", "GB", 1e-3),
    Figure("search by name", "catalogue", "find_ms", "n", "ms"),
    Figure("write vectors of one layer, mean and maximum", "vectors", "vectors_cpu_s", "n", "CPU min", 1 / 60),
    Figure("vectors of one layer, mean and maximum, on disk", "vectors", "vectors_mb", "n", "GB", 1e-3),
    Figure(f"build `{KIND}`", "vectors", "ivf_build_cpu_s", "n√n", "CPU h", 1 / 3600),
    Figure(f"`{KIND}` on disk", "vectors", "ivf_index_mb", "n", "GB", 1e-3),
    Figure(f"`{KIND}`: recall@10", "vectors", "ivf_recall", "constant", ""),
    Figure(f"`{KIND}`: search by a clip, median", "vectors", "ivf_search_ms", "√n", "ms"),
    Figure(f"`{KIND}`: 99th percentile", "vectors", "ivf_search_p99_ms", "√n", "ms"),
    Figure(f"`{KIND}`: memory of a process that searches", "vectors", "ivf_resident_mb", "n", "GB", 1e-3),
    Figure("build `hnsw`", "vectors", "hnsw_build_cpu_s", "n log n", "CPU h", 1 / 3600),
    Figure("without an index: reading the layer", "vectors", "load_s", "n", "s"),
    Figure("without an index: search", "vectors", "scan_ms", "n", "ms"),
    Figure("without an index: memory of the layer", "vectors", "layer_mb", "n", "GB", 1e-3),
    Figure("without an index: memory while it is read", "vectors", "peak_scan_mb", "n", "GB", 1e-3),
    Figure("build `lance`", "away", "build_cpu_s", "n√n", "CPU h", 1 / 3600),
    Figure("`lance` on the store", "away", "index_mb", "n", "GB", 1e-3),
    Figure("`lance`: recall@10", "away", "recall", "constant", ""),
    Figure("build: requests, as a GET", "away", "build_gets", "n", ""),
    Figure("build: requests, as a PUT", "away", "build_puts", "n", ""),
    Figure("build: read", "away", "build_read_mb", "n", "GB", 1e-3),
    Figure("first query of a process: requests", "away", "first_gets", "√n", ""),
    Figure("first query of a process: lists of files, as a PUT", "away", "first_puts", "constant", ""),
    Figure("first query of a process: read", "away", "first_read_mb", "n", "GB", 1e-3),
    Figure("later query: requests", "away", "later_gets", "log n", ""),
    Figure("later query: lists of files, as a PUT", "away", "later_puts", "constant", ""),
    Figure("later query: read", "away", "later_read_mb", "log n", "MB"),
)


def apart(name: str, *words: Any) -> dict[str, float]:
    """Return the result of a function of `bench.ten_million_runs` called with text in a new process."""
    command = [sys.executable, "-m", "bench.ten_million", "--run", name, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def be_run(name: str, words: Sequence[str]) -> None:
    """Do one run and print its result as JSON."""
    from bench import ten_million_runs as runs

    values = [int(word) if word.isdigit() else word for word in words]
    values, flags = [word for word in values if word != "names"], {"names": "names" in values} if name == "ask" else {}
    print(json.dumps(getattr(runs, name)(*values, **flags)))


def run_once(work: Path, name: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return the figures of a run, from the folder if it is done."""
    file = work / f"{name}.json"
    if not file.exists():
        found = measure()
        print(name, json.dumps(found), file=sys.stderr, flush=True)
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def measure_all(work: Path, sizes: dict[str, Sequence[int]]) -> dict[str, dict[int, dict[str, float]]]:
    """Return the figures of every run by kind and number of rows."""
    found: dict[str, dict[int, dict[str, float]]] = {kind: {} for kind in sizes}
    for rows in sizes["catalogue"]:
        lake = work / f"catalogue-{rows}"
        found["catalogue"][rows] = (
            run_once(work, f"catalogue-{rows}-write", lambda: apart("write", lake, rows, NARROW_DIM))            # noqa: B023
            | run_once(work, f"catalogue-{rows}-build", lambda: apart("build", lake, KIND))                      # noqa: B023
            | run_once(work, f"catalogue-{rows}-ask", lambda: apart("ask", lake, *["names"] * (rows <= NAMED)))  # noqa: B023
        )
    for rows in sizes["vectors"]:
        lake = work / f"vectors-{rows}"
        one = run_once(work, f"vectors-{rows}-write", lambda: apart("write", lake, rows, DIM))                   # noqa: B023
        one |= run_once(work, f"vectors-{rows}-scan", lambda: apart("scan", lake))                               # noqa: B023
        for kind in ("hnsw", KIND):
            for part, words in (("build", [kind]), ("ask", [])):
                done = run_once(work, f"vectors-{rows}-{kind}-{part}", lambda: apart(part, lake, *words))        # noqa: B023
                one |= {f"{kind.partition('-')[0]}_{key}": value for key, value in done.items()}
        found["vectors"][rows] = one
    for rows in sizes["away"]:
        found["away"][rows] = run_once(work, f"away-{rows}", lambda: apart("away", rows, DIM))                   # noqa: B023
    return found


def shown(value: float) -> str:
    """A number with three digits, or without decimals.

    >>> shown(0.01234), shown(12.34), shown(12345.6)
    ('0.0123', '12.3', '12,346')
    """
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def make_rows(found: dict[str, dict[int, dict[str, float]]]) -> tuple[list[list[str]], dict[str, Estimate]]:
    """Return the rows of the table, and the estimates by `run key`."""
    rows, estimates = [], {}
    for name, run, key, growth, unit, factor in FIGURES:
        known = {size: one[key] * factor for size, one in found[run].items() if key in one}
        if not known:
            continue
        estimate = extrapolate(list(known), list(known.values()), growth)
        measured = ", ".join(f"{short(size)} {shown(value)}" for size, value in known.items())
        span = "measured" if TARGET in known else f"{shown(estimate.low)} to {shown(estimate.high)}, as {growth}"
        rows.append([name, measured, f"{shown(estimate.value)} {unit}".strip(), span])
        estimates[estimate_key(run, key, unit)] = estimate
    return rows, estimates


def estimate_key(run: str, key: str, unit: str) -> str:
    """Return the name of an estimate, with its unit in place of that of the measured value.

    >>> estimate_key("catalogue", "clips_mb", "GB"), estimate_key("away", "build_cpu_s", "CPU h")
    ('catalogue_clips_gb', 'away_build_cpu_h')
    """
    stem = re.sub("(_cpu)?_(s|ms|mb)$", "", key)
    return "_".join(word for word in (run, stem, unit.lower().replace(" ", "_")) if word)


def short(rows: int) -> str:
    return f"{rows // 1_000_000}M" if rows >= 1_000_000 else f"{rows // 1_000}k"


def costs(estimates: dict[str, Estimate], prices: argparse.Namespace) -> dict[str, float]:
    """Return what follows from the estimates: disk, days of embedding, and the price of an object store."""
    def at(key: str) -> float:
        return estimates[key].value

    layer_gb = at("vectors_vectors_gb") / 2              # mean and maximum are stored
    stored_gb = at("catalogue_clips_gb") + at("catalogue_names_gb") + LAYERS * 2 * layer_gb + at("away_index_gb")
    get, put = prices.price_1000_get / 1000, prices.price_1000_put / 1000
    return {
        "layer_gb": layer_gb, "layers_13_gb": LAYERS * layer_gb, "stored_gb": stored_gb,
        "month": stored_gb * prices.price_gb_month,
        "build": at("away_build_gets") * get + at("away_build_puts") * put,
        "queries_1000": 1_000 * (at("away_later_gets") * get + at("away_later_puts") * put),
        "first_query": at("away_first_gets") * get + at("away_first_puts") * put,
        "query_s": (at("away_later_gets") + at("away_later_puts")) * prices.round_trip_ms / 1000,
        "embed_days": TARGET * SECONDS / embed_speed() / 86_400,
    }


def build_memory_gb(runs: dict[int, dict[str, float]], index: Estimate) -> float:
    """Return the memory of a build: the index, and what trains its lists, which stops growing at TRAIN_ROWS clips."""
    from tonelake.index.search.approximate import TRAIN_ROWS

    size = max(runs)
    training_mb = (runs[size]["ivf_peak_build_mb"] - runs[size]["ivf_index_mb"]) * max(1.0, TRAIN_ROWS / size)
    return index.value + training_mb / 1000


def embed_speed() -> float:
    """Return the seconds of audio a second of `tonelake, auto` in `bench.embed`: MERT-v1-95M, windows of 30 s."""
    text = (RESULTS / "embed.md").read_text(encoding="utf-8")
    return float(next(line for line in text.splitlines() if line.startswith("| tonelake, auto")).split("|")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("ten-million"), help="Folder of the lakes and of finished runs.")
    parser.add_argument("--catalogue", type=int, nargs="*", default=CATALOGUE)
    parser.add_argument("--vectors", type=int, nargs="*", default=VECTORS)
    parser.add_argument("--away", type=int, nargs="*", default=AWAY)
    # The baseline: Amazon S3 standard in us-east-1, November 2026, first 50 TB; traffic within the region is free.
    parser.add_argument("--price-gb-month", type=float, default=0.023)
    parser.add_argument("--price-1000-get", type=float, default=0.0004)
    parser.add_argument("--price-1000-put", type=float, default=0.005)
    parser.add_argument("--round-trip-ms", type=float, default=30.0, help="Assumed time of a request.")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        be_run(arguments.run[0], arguments.run[1:])
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    sizes = {"catalogue": arguments.catalogue, "vectors": arguments.vectors, "away": arguments.away}
    found = measure_all(arguments.work, sizes)
    if all(found.values()):
        report(found, arguments)


def report(found: dict[str, dict[int, dict[str, float]]], prices: argparse.Namespace) -> None:
    """Write the results."""
    about = circumstances("clips and vectors (seeded clusters); no audio and no model")
    rows, estimates = make_rows(found)
    cost = costs(estimates, prices) | {"build_memory_gb": build_memory_gb(found["vectors"], estimates["vectors_ivf_index_gb"])}
    derived = [
        [f"memory to build `{KIND}`: the index, and what trains its lists", f"{cost['build_memory_gb']:,.1f} GB"],
        ["one layer of float16, mean alone", f"{cost['layer_gb']:,.1f} GB"],
        ["13 layers, mean and maximum, clips, names and an index", f"{cost['stored_gb']:,.0f} GB"],
        [f"the same on an object store, at {prices.price_gb_month} a GB", f"{cost['month']:,.2f} a month"],
        [f"one build there, at {prices.price_1000_get} and {prices.price_1000_put} for 1,000 requests", f"{cost['build']:.4f}"],
        ["1,000 later queries there, their lists included", f"{cost['queries_1000']:.4f}"],
        [f"a later query there, its requests one after another at {prices.round_trip_ms:g} ms", f"{cost['query_s']:.1f} s"],
        ["embedding with MERT-v1-95M on the machine of `bench.embed`", f"{cost['embed_days']:,.0f} days"],
    ]
    text = (
        f"Measured sizes are in clips. Vectors of catalogues have {NARROW_DIM} dimensions, others {DIM}. A range is that "
        "of a fit to all sizes, of proportional growth from the largest, and of the power law through the last two.\n\n"
        + table(["figure", "measured", "at 10M", "range"], rows)
        + "\n## Derived for ten million clips of 30 s\n\n"
        + table(["figure", "value"], derived)
        + "\nPrices are parameters; the baseline is Amazon S3 standard in us-east-1, November 2026, in dollars, without "
        "traffic out of the region. moto's own latency says nothing about a store. A query sends most requests together, so "
        "its latency there is a few round trips, and the time given is an upper limit.\n"
    )
    values = {key: estimate.value for key, estimate in estimates.items()}
    values |= {f"derived_{key}": value for key, value in cost.items()}
    ranges = {key: {"low": estimate.low, "high": estimate.high} for key, estimate in estimates.items()}
    write_results(
        "scale", "Ten million clips, by simulation", text, about, values, ranges=ranges,
        measured={kind: {str(size): one for size, one in runs.items()} for kind, runs in found.items()},
    )


if __name__ == "__main__":
    main()
