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

    from tonelake.store import processor_name

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores of {processor_name()}, {arithmetic()}; {', '.join(gpus) or 'no GPU'}",
        "commit": commit(),
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "random": random,
    }


def arithmetic() -> str:
    """Return what the processor computes with in bfloat16."""
    from tonelake.embed import cpu_has_bfloat16
    from tonelake.embed.kernels.attention import has_matrix_unit

    return "with AMX" if has_matrix_unit() else "with bfloat16 arithmetic" if cpu_has_bfloat16() else "no bfloat16 arithmetic"


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
