"""Mutation testing: insert small errors into the code, one at a time, and check that the tests notice.

A seeded sample of cosmic-ray's mutants of each module is run against the tests for the module.  A surviving mutant is either
harmless (a changed bound that is never reached, a changed order of items that are sorted later) or shows a missing test.
Survivors are listed with their diffs for a person to read.

    python -m pip install cosmic-ray && python -m bench.mutants --each 40
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from bench.report import RESULTS, circumstances, table, write_results

HOME = Path(__file__).resolve().parent.parent
# Tests for each module; running all tests would notice more but take minutes per mutant.
TESTS = {
    "embed/batches.py": "embed/batches",
    "embed/kernels/attention.py": "embed/attention",
    "embed/encoders/checkpoint.py": "embed/mert",
    "embed/kernels/convolutions.py": "embed/convolutions",
    "embed/encoders/hubert.py": "embed/mert embed/batches",
    "embed/encoders/spectral.py": "embed/spectral",
    "embed/live.py": "embed/live",
    "embed/plan.py": "embed/plan",
    "embed/precision.py": "embed/precision",
    "embed/windows.py": "embed/windows",
    "embed/work.py": "embed/embed embed/frames",
    "embed/writer.py": "embed/writer store/compaction",
    "evaluate/labelled.py": "index/layer_report index/groups",
    "evaluate/metrics.py": "evaluate/metrics tonelake/properties",
    "evaluate/ranking.py": "evaluate/ranking index/layer_report",
    "evaluate/jackknife.py": "evaluate/jackknife",
    "evaluate/multiple.py": "evaluate/jackknife",
    "evaluate/pair_area.py": "evaluate/pair_area index/layer_report",
    "evaluate/splits.py": "evaluate/splits tonelake/properties",
    "index/log_odds.py": "index/tokens",
    "index/maps/clusters.py": "index/maps",
    "index/maps/layout.py": "index/layout index/maps",
    "index/maps/make.py": "index/maps",
    "index/maps/umap.py": "index/umap index/layout index/maps",
    "index/search/alignment.py": "index/alignment",
    "index/search/approximate.py": "index/stored_index",
    "index/search/described_index.py": "index/stored_index index/lance_index",
    "index/search/duplicates.py": "index/duplicates",
    "index/search/exact.py": "index/similar",
    "index/search/facets.py": "index/facets",
    "index/search/faiss.py": "index/similar index/stored_index",
    "index/search/faiss_files.py": "index/stored_index",
    "index/search/lance_index.py": "index/lance_index",
    "index/search/mixture.py": "index/mixture",
    "index/search/neighbour_graph.py": "index/maps",
    "index/search/path.py": "index/path",
    "index/search/query.py": "index/similar index/mixture",
    "index/search/similar.py": "index/similar",
    "index/search/similar_many.py": "index/similar index/stored_index",
    "index/search/row_cache.py": "index/lance_index",
    "index/search/stored_index.py": "index/stored_index index/lance_index",
    "index/separation/compare_spaces.py": "index/compare_spaces",
    "index/separation/group_similarity.py": "index/groups",
    "index/separation/groups.py": "index/groups",
    "index/separation/layer_report.py": "index/layer_report",
    "index/separation/occurrence.py": "index/layer_report",
    "index/separation/overlap.py": "index/compare_spaces",
    "index/separation/pair_set.py": "index/layer_report",
    "index/separation/pairs.py": "index/layer_report",
    "index/separation/preparations.py": "index/layer_report",
    "index/tokens/factor_oracle.py": "index/tokens",
    "index/tokens/live.py": "embed/live",
    "index/tokens/passages.py": "index/tokens",
    "index/tokens/sequences.py": "index/tokens",
    "index/tokens/vocabulary.py": "index/tokens",
    "index/vectors.py": "index/similar index/stored_index",
    "ingest/chorale_scores.py": "ingest/chorales",
    "ingest/containers.py": "ingest/containers ingest/decode",
    "ingest/datasets/base.py": "ingest/tagged_datasets ingest/dataset_links ingest/dataset_tables",
    "ingest/decode.py": "ingest/decode",
    "ingest/labels.py": "ingest/ingest ingest/tagged_datasets",
    "ingest/recordings.py": "ingest/ingest",
    "ingest/scan.py": "ingest/decode ingest/ingest",
    "ingest/segment.py": "ingest/ingest tonelake/properties",
    "ingest/tables.py": "ingest/dataset_tables ingest/tagged_datasets",
    "store/blobs.py": "store/blobs store/store store/compaction tonelake/verify",
    "store/clips.py": "store/store ingest/ingest",
    "store/columns.py": "store/columns",
    "store/compaction.py": "store/compaction tonelake/verify",
    "store/failures.py": "store/store",
    "store/format.py": "store/format",
    "store/fragments.py": "store/fragments",
    "store/frames.py": "embed/frames",
    "store/key_rows.py": "tonelake/properties",
    "store/lake.py": "store/store",
    "store/lance_pages.py": "store/lance_pages",
    "store/lease.py": "store/lease",
    "store/machine.py": "store/machine",
    "store/numba_cache.py": "embed/librosa_import index/umap",
    "store/object_blobs.py": "store/object_blobs store/blobs store/lease",
    "store/object_stores.py": "store/object_blobs",
    "store/process.py": "store/deferred_import store/process",
    "store/projection.py": "probes/metric_learning",
    "store/runs.py": "store/settings probes/probe_runs",
    "store/settings.py": "store/settings",
    "store/space.py": "store/store",
    "store/table.py": "store/store store/compaction",
    "store/text.py": "tonelake/properties",
    "store/tokens.py": "index/tokens",
    "store/tracks.py": "index/duplicates tonelake/properties",
    "store/upgrade.py": "store/format",
    "store/vectors.py": "store/store",
}
TIMEOUT_S = 120


def is_said_only(module: Path, line: int, column: int) -> bool:
    """Whether a position is inside an annotation, which is never evaluated here."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    said: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            said.append(node.returns)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            said.append(node.annotation)
    return any(
        (one.lineno, one.col_offset) <= (line, column) <= (one.end_lineno or 0, one.end_col_offset or 0) for one in said if one
    )


def choose(clone: Path, session: Path, each: int) -> tuple[int, int]:
    """Skip all but a sample of a session's mutants; return the number of mutants and the number that will run."""
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    with use_db(session) as work:
        real, said = [], []
        for item in work.work_items:
            place = item.mutations[0]
            (said if is_said_only(clone / place.module_path, *place.start_pos) else real).append(item.job_id)
        chosen = set(random.Random(0).sample(sorted(real), min(each, len(real))))
        for job in (*real, *said):
            if job not in chosen:
                work.set_result(job, WorkResult(WorkerOutcome.SKIPPED))
    return len(real), len(chosen)


def run_module(module: str, clone: Path, each: int) -> dict[str, object]:
    """Run the sample of one module in one copy of the project."""
    with tempfile.TemporaryDirectory() as folder:
        config, session = Path(folder) / "config.toml", Path(folder) / "session.sqlite"
        tests = " ".join(f"tests/{room}/test_{name}.py" for room, name in (each.split("/") for each in TESTS[module].split()))
        command = f"{shlex.quote(sys.executable)} -m pytest -q -x -p no:cacheprovider --no-header --tb=no {tests}"
        config.write_text(
            f'[cosmic-ray]\nmodule-path = "{module}"\ntimeout = {TIMEOUT_S}.0\nexcluded-modules = []\n'
            f'test-command = {json.dumps(command)}\n[cosmic-ray.distributor]\nname = "local"\n'
        )
        ray = [sys.executable, "-m", "cosmic_ray.cli"]
        subprocess.run([*ray, "init", str(config), str(session)], cwd=clone, check=True, capture_output=True)
        found, chosen = choose(clone, session, each)
        subprocess.run(shlex.split(command), cwd=clone, check=True, capture_output=True)     # the unchanged code must pass
        subprocess.run([*ray, "exec", str(config), str(session)], cwd=clone, check=True, capture_output=True)
        dumped = subprocess.run([*ray, "dump", str(session)], cwd=clone, check=True, capture_output=True, text=True).stdout
        subprocess.run(["git", "checkout", "-q", "."], cwd=clone, check=True)
    outcomes: Counter[str] = Counter()
    survivors = []
    for line in dumped.splitlines():
        item, result = json.loads(line)
        if result is None or result["worker_outcome"] == "skipped":
            continue
        outcome = result["test_outcome"] or "killed"     # an abnormal end counts as noticed
        outcomes[outcome] += 1
        if outcome == "survived":
            survivors.append({"line": item["mutations"][0]["start_pos"][0], "diff": changed_lines(result["diff"])})
    assert sum(outcomes.values()) == chosen, (module, outcomes, chosen)
    killed = outcomes["killed"] + outcomes["incompetent"]
    print(f"{module}: {killed} of {chosen} noticed, {found} mutants in all", file=sys.stderr, flush=True)
    return {"module": module, "mutants": found, "run": chosen, "noticed": killed, "survivors": survivors}


def changed_lines(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=40, help="mutants of a module")
    parser.add_argument("--modules", nargs="*", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    about = circumstances("which mutants were run (seeded)")
    os.environ["OMP_NUM_THREADS"] = "1"                  # several tests share the cores
    found = [one for one in earlier() if one["module"] not in arguments.modules]
    keep = threading.Lock()
    clones: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.workers):
            subprocess.run(["git", "clone", "-q", str(HOME), f"{folder}/{number}"], check=True)
            clones.put(Path(folder) / str(number))

        def work(module: str) -> None:
            clone = clones.get()
            try:
                result = run_module(module, clone, arguments.each)
            finally:
                clones.put(clone)
            with keep:
                found.append(result | {"commit": about["commit"]})
                report(found, about)

        with ThreadPoolExecutor(arguments.workers) as pool:
            list(pool.map(work, arguments.modules))
    print("bench/results/mutants.md and .json are written")


def earlier() -> list[dict]:
    """Return earlier results, for modules that are not run this time."""
    kept = RESULTS / "mutants.json"
    return json.loads(kept.read_text())["modules"] if kept.exists() else []


def report(found: list[dict], about: dict[str, str]) -> None:
    ordered = sorted(found, key=lambda one: one["module"])
    rows = [
        [one["module"], one["commit"], TESTS[one["module"]], f"{one['mutants']}", f"{one['run']}", f"{one['noticed']}",
         f"{100 * one['noticed'] / max(1, one['run']):.0f} %"]
        for one in ordered
    ]
    run, noticed = (sum(one[key] for one in found) for key in ("run", "noticed"))
    text = (
        f"{noticed} of {run} sampled mutants were noticed ({100 * noticed / max(1, run):.0f} %). The survivors are listed in "
        "`mutants.json` with their diffs.\n\n"
        + table(["module", "commit", "tests", "mutants", "run", "noticed", "share"], rows)
    )
    write_results("mutants", "Mutation testing", text, about, {"noticed": noticed / max(1, run)}, modules=ordered)


if __name__ == "__main__":
    main()
