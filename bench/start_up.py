"""Start-up: a whole `tonelake similar` process on a small lake, beside the import of LanceDB, which it does without; part of
`bench.search`.

    python -m bench.start_up                 # prints the table without writing results
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.reading import lake_of
from bench.report import table

CLIPS, DIM, ROUNDS = 200, 768, 11


def start_up() -> tuple[str, float]:
    """Return a table, and the median seconds of a warm `tonelake similar` on a lake of 200 clips."""
    with tempfile.TemporaryDirectory() as folder:
        vectors = np.random.default_rng(0).standard_normal((CLIPS, DIM))
        lake, _, ids = lake_of(Path(folder) / "lake", vectors)
        command = [sys.executable, "-P", "-m", "tonelake"]
        ways = {
            "tonelake similar": [*command, "similar", ids[0], "--lake", lake.uri, "--json"],
            "tonelake --version": [*command, "--version"],
            "python -c 'import lancedb, polars'": [sys.executable, "-c", "import lancedb, polars"],
            "python -c 'import lancedb, polars, pandas'": [sys.executable, "-c", "import lancedb, polars, pandas"],
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):             # the first round compiles and fills the page cache
            for name, arguments in ways.items():
                started = time.perf_counter()
                subprocess.run(arguments, capture_output=True, check=True)
                if number:
                    taken[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    rows = [[f"`{name}`", f"{seconds:.2f}"] for name, seconds in medians.items()]
    return table(["process", "s, median"], rows), medians["tonelake similar"]


if __name__ == "__main__":
    print(start_up()[0])
