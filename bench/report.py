"""Header of every benchmark report (machine, date, commit), and writing of results."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def circumstances(random: str) -> dict[str, str]:
    """Return machine, date, commit, versions, and the sources of randomness."""
    import torch

    from tonelake.embed import cpu_has_bfloat16

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores of {processor()}, {'with' if cpu_has_bfloat16() else 'no'} bfloat16 arithmetic; "
        f"{', '.join(gpus) or 'no GPU'}",
        "commit": commit(),
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "random": random,
    }


def processor() -> str:
    """Return the model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """Return the commit, and whether files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=False).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" and changes" if git("status", "--porcelain", "-uno") else "")


def write_results(name: str, title: str, text: str, about: dict[str, str], ratios: dict[str, float], **more: Any) -> None:
    """Write `<name>.md` for people and `<name>.json` for programs."""
    RESULTS.mkdir(exist_ok=True)
    facts = "".join(f"- {key}: {value}\n" for key, value in about.items())
    (RESULTS / f"{name}.md").write_text(f"# {title}\n\n{facts}\n{text.strip()}\n", encoding="utf-8")
    rounded = {key: round(value, 3) for key, value in ratios.items()}
    (RESULTS / f"{name}.json").write_text(json.dumps({"about": about, "ratios": rounded, **more}, indent=2) + "\n")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
