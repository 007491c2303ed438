"""Only the processors and memory that a container or a batch job grants are counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tonelake.store import machine

HOME = Path(__file__).parents[2]
GB = 1 << 30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Write control groups: `groups({path: text}, membership)`."""
    def write(files: dict[str, str], own: str) -> None:
        for name, text in files.items():
            (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / name).write_text(text)
        (tmp_path / "own").write_text(own)

    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(machine, "bound_cores", lambda: 64)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 256 * GB // 4096}.__getitem__)
    for count in (machine.cores, machine.memory_bytes):
        count.cache_clear()
    yield write
    for count in (machine.cores, machine.memory_bytes):
        count.cache_clear()


@pytest.mark.parametrize(
    ("files", "own", "cores", "memory"),
    [
        ({}, "", 64, 256 * GB),
        ({"cpu.max": "max 100000", "memory.max": "max"}, "0::/\n", 64, 256 * GB),
        ({"cpu.max": "200000 100000", "memory.max": f"{8 * GB}"}, "0::/\n", 2, 8 * GB),
        # a step within a job, whose limit applies too
        (
            {"job/cpu.max": "400000 100000", "job/step/cpu.max": "max 100000", "job/memory.max": f"{16 * GB}",
             "job/step/memory.max": f"{32 * GB}"},
            "0::/job/step\n", 4, 16 * GB,
        ),
        # version 1: a hierarchy for each controller; -1 and a huge number mean no limit
        (
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
             "memory/memory.limit_in_bytes": "9223372036854771712"},
            "4:memory:/\n1:cpu,cpuacct:/\n", 64, 256 * GB,
        ),
        (
            {"cpu/a/cpu.cfs_quota_us": "150000\n", "cpu/a/cpu.cfs_period_us": "100000\n",
             "memory/b/memory.limit_in_bytes": f"{GB}"},
            "4:memory:/b\n1:cpu,cpuacct:/a\n0::/\n", 2, GB,
        ),
        ({"cpu.max": "10000 100000"}, "0::/../../x\n", 1, 256 * GB),         # less than one, and a path from outside
    ],
)  # fmt: skip
def test_limits_of_all_enclosing_groups_apply(groups, files, own, cores, memory):
    groups(files, own)
    assert (machine.cores(), machine.memory_bytes()) == (cores, memory)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such call on this platform")
def test_processors_of_other_processes_are_not_counted():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from tonelake import store, ingest; " \
        "print(store.cores(), ingest.DecoderPool().count, os.environ.get('OMP_NUM_THREADS'))"
    assert output_of(code, OMP_NUM_THREADS=None) == "1 1 None"


@pytest.mark.slow
def test_libraries_start_no_more_threads_than_processors_are_granted(tmp_path):
    (tmp_path / "cpu.max").write_text("100000 100000")
    (tmp_path / "own").write_text("0::/\n")
    code = f"""
import runpy, sys
from pathlib import Path
from tonelake import store
from tonelake.store import machine
machine.GROUPS, machine.OWN_GROUP, machine.bound_cores = Path({str(tmp_path)!r}), Path({str(tmp_path / 'own')!r}), lambda: 64
import numpy
from threadpoolctl import threadpool_info
store.prepare_process()
import torch, faiss
print({{pool["num_threads"] for pool in threadpool_info()}}, torch.get_num_threads(), faiss.omp_get_max_threads())
"""
    assert output_of(code, OMP_NUM_THREADS=None) == "{1} 1 1"
    assert output_of(code, OMP_NUM_THREADS="2").endswith(" 2 2")               # an explicit value is respected


def output_of(code: str, **variables: str | None) -> str:
    env = {key: value for key, value in (os.environ | variables).items() if value is not None}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME, env=env)
    return done.stdout.strip()
