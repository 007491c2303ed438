"""umap-learn's layout is compiled once per machine, with equal results before and after caching."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
CODE = """
import sys
import numba
import numpy as np
import umap                              # its own cache stays in place
numba.config.CACHE_DIR = sys.argv[1]
from numba.core import event
from tonelake.index.maps.umap import COMPILED, load_umap, optimise

class Compiled(event.Listener):
    def on_start(self, begun):
        found.append(begun.data["dispatcher"].__name__)

    def on_end(self, ended):
        pass

found = []
names = {name.removeprefix("_nb") for _, names in COMPILED for name in names}
event.register("numba:compile", Compiled())
load_umap()
compiled, found[:] = sorted(names & set(found)), []
ring = np.arange(40)
near = np.stack([(ring + step) % 40 for step in (1, -1, 2, -2)], axis=1)
start = np.asfortranarray(np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32))      # as a table gives it
points = optimise(near, np.ones((40, 4), np.float32), start, 0.1, 0)
print(len(compiled), len(found), points.tobytes().hex())
"""


def laid_out(cache: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", CODE, str(cache)], capture_output=True, text=True, check=True, cwd=HOME)
    return done.stdout.split()


def test_loading_umap_leaves_the_number_of_torchs_threads(one_thread):
    """numba raises OpenMP's number of threads, with which small tensors take several times the processor time."""
    import torch

    from tonelake.index.maps.umap import load_umap

    load_umap()
    assert torch.get_num_threads() == 1 == int(os.environ["OMP_NUM_THREADS"])


@pytest.mark.slow                        # compiles umap-learn's functions in an empty cache
def test_a_second_process_compiles_nothing_and_gives_the_same_layout(tmp_path):
    first, second = laid_out(tmp_path), laid_out(tmp_path)
    assert first[:2] == ["3", "0"]       # all compiled before the first map, within the lock
    assert second == ["0", "0", first[2]]


@pytest.mark.slow
@pytest.mark.parametrize("call", ["tonelake.index.maps.umap.load_umap", "tonelake.embed.librosa_import.load_librosa"])
def test_without_a_cache_folder_the_error_names_the_remedy(call):
    module, name = call.rsplit(".", 1)
    code = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"               # like a user without a home and a read-only installation
        f"from tonelake.store import TonelakeError\nfrom {module} import {name}\n"
        f"try:\n    {name}()\nexcept TonelakeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME)
    assert "Set NUMBA_CACHE_DIR to a folder" in done.stdout
