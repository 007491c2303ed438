"""What librosa compiles is compiled by one process at a time: files of two need not fit each other, and kill who loads them."""

from __future__ import annotations

import fcntl
import importlib
import subprocess
import sys
import threading
from pathlib import Path

import librosa
import pytest

from tonelake.embed import librosa_import
from tonelake.embed.librosa_import import GENERALIZED, load_librosa
from tonelake.store.numba_cache import one_compiler

HOME = Path(__file__).resolve().parents[2]


def is_held(file):
    with Path(file).open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_it_is_compiled_behind_a_lock(monkeypatch):
    seen, load = [], importlib.import_module

    def look(name, *package):
        if name.removeprefix("librosa.") in GENERALIZED:
            seen.append((name, is_held(librosa.__file__)))
        return load(name, *package)

    monkeypatch.setattr(librosa_import.importlib, "import_module", look)
    load_librosa.cache_clear()
    assert load_librosa() is librosa is load_librosa()
    assert set(seen) == {(f"librosa.{name}", True) for name in GENERALIZED}
    assert not is_held(librosa.__file__)


def test_others_wait_until_it_is_over_however_it_ends(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"as it was")
    order = []

    def second():
        with one_compiler(file):
            order.append("second")

    waiting = threading.Thread(target=second)
    with pytest.raises(KeyboardInterrupt), one_compiler(file):
        waiting.start()
        waiting.join(0.3)
        order.append("first")
        raise KeyboardInterrupt
    waiting.join(10)
    assert order == ["first", "second"] and file.read_bytes() == b"as it was"


def test_nothing_else_that_we_use_of_librosa_is_compiled_so():
    """Of the modules that spectral, a spectrogram and an alignment load, those with generalised ufuncs are all listed."""
    code = (
        "import sys\nimport numpy as np\nfrom pathlib import Path\nfrom embed.encoders.spectral import describe\n"
        "from index.search.alignment import best_warp\nfrom tonelake.charts import draw_spectrogram\n"
        "noise = np.random.default_rng(0).standard_normal(24_000).astype(np.float32)\n"
        "describe(noise), draw_spectrogram(noise, 24_000), best_warp(np.eye(4, 9))\n"
        "loaded = {n: m.__file__ for n, m in list(sys.modules.items()) if n.startswith('librosa.') and m.__file__}\n"
        "print(*[n for n, file in loaded.items() if 'guvectorize(' in Path(file).read_text()])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME, check=True)
    assert set(done.stdout.split()) == {f"librosa.{name}" for name in GENERALIZED}
