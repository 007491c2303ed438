"""Files in every situation that audio is found in, read as ingest reads them, and compared with what is right.

The generator of the tests (tests/support/situations.py) with other seeds than theirs: other tunes, rates, lengths and places.

    python -m bench.files --seeds 1 2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from bench.report import circumstances, table, write_results

SUPPORT = Path(__file__).absolute().parents[1] / "tests" / "support"
GROUPS = {                               # situations by module: the columns of the table
    "channels": "channels", "formats": "formats", "headers": "headers", "joined": "joined", "tagged": "tags",
    "damaged": "cut, padded, damaged", "unusable": "unusable",
}
NARROW = 160                             # characters of a reason in the list


def judge(seeds: list[int], processes: int) -> list[dict[str, Any]]:
    """Make and read every situation; one row for each, with its verdict."""
    sys.path.insert(0, str(SUPPORT))
    from situation_check import check
    from situations import grouped_situations

    from tonelake.ingest import DecoderPool

    rows = []
    with tempfile.TemporaryDirectory() as home, DecoderPool(processes, time_limit_s=120.0) as pool:
        for seed in seeds:
            for group, situation in grouped_situations(seed):
                path = Path(home) / situation.file_name
                verdict = check(situation, path, pool)
                path.unlink()
                rows.append({"seed": seed, "group": group, "container": situation.container, "name": situation.name,
                             "verdict": verdict.kind, "why": verdict.why})
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """A table of right situations by container and group, and a list of the wrong ones."""
    made: dict[str, Counter] = defaultdict(Counter)
    right: dict[str, Counter] = defaultdict(Counter)
    for row in rows:
        made[row["container"]][row["group"]] += 1
        right[row["container"]][row["group"]] += row["verdict"] == "right"

    def cell(container: str, group: str) -> str:
        of, good = made[container][group], right[container][group]
        return "" if not of else str(of) if good == of else f"**{good} of {of}**"

    lines = table(
        ["container", *GROUPS.values(), "all"],
        [[container, *(cell(container, group) for group in GROUPS),
          f"{sum(right[container].values())} of {sum(made[container].values())}"] for container in sorted(made)],
    )
    wrong: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["verdict"] != "right":
            wrong[row["container"], row["name"], row["verdict"]].append(row)
    if not wrong:
        return lines + "\nNo situation is wrong.\n"
    listed = table(
        ["container", "situation", "verdict", "seeds", "outcome"],
        [[*key, ", ".join(str(row["seed"]) for row in found), found[0]["why"].replace("|", "/")[:NARROW]]
         for key, found in sorted(wrong.items())],
    )
    return f"{lines}\n## Wrong\n\n{listed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--processes", type=int, default=1, help="Number of decoder processes.")
    arguments = parser.parse_args()
    about = circumstances(f"the tunes, rates, lengths and places, seeds {', '.join(map(str, arguments.seeds))}")
    started = time.monotonic()
    rows = judge(arguments.seeds, arguments.processes)
    counts = Counter(row["verdict"] for row in rows)
    text = (
        f"{len(rows):,} files, {counts['right']:,} with a right outcome, {counts['refused wrongly']} refused or flagged "
        f"wrongly, {counts['accepted wrongly']} accepted wrongly (without the flag they need, or with a wrong length, pitch, "
        f"level, position, title or read from the middle), in {time.monotonic() - started:.0f} s.\n\n"
        "A number alone: every file of the cell is right.\n\n" + report(rows)
    )
    write_results(
        "files", "Audio files in every situation", text, about, {}, situations=len(rows), right=counts["right"],
        refused_wrongly=counts["refused wrongly"], accepted_wrongly=counts["accepted wrongly"],
    )
    print(text)


if __name__ == "__main__":
    main()
