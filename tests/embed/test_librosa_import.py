"""One process at a time compiles librosa's functions: files of two processes may not fit each other, and kill their readers."""

from __future__ import annotations

import fcntl
import importlib
import subprocess
import sys
from pathlib import Path

import librosa
import pytest

from tonelake.embed import librosa_import
from tonelake.embed.librosa_import import GENERALIZED, load_librosa
from tonelake.store.locks import lock_of_module

HOME = Path(__file__).resolve().parents[2]


def is_locked(file):
    with Path(file).open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_it_is_compiled_behind_a_lock(monkeypatch):
    seen, load = [], importlib.import_module

    def record_import(name, *package):
        if name.removeprefix("librosa.") in GENERALIZED:
            seen.append((name, is_locked(lock_of_module(Path(librosa.__file__)))))
        return load(name, *package)

    monkeypatch.setattr(librosa_import.importlib, "import_module", record_import)
    load_librosa.cache_clear()
    assert load_librosa() is librosa is load_librosa()
    assert set(seen) == {(f"librosa.{name}", True) for name in GENERALIZED}
    assert not is_locked(lock_of_module(Path(librosa.__file__)))


@pytest.mark.slow
def test_all_modules_of_librosa_compiled_at_import_are_listed():
    """Among the modules that spectral, a spectrogram and an alignment load, those with generalised ufuncs are all listed."""
    code = (
        "import sys\nimport numpy as np\nfrom pathlib import Path\nfrom tonelake.embed.encoders.spectral import describe\n"
        "from tonelake.index.search.alignment import best_warp\nfrom tonelake.charts import draw_spectrogram\n"
        "noise = np.random.default_rng(0).standard_normal(24_000).astype(np.float32)\n"
        "describe(noise), draw_spectrogram(noise, 24_000), best_warp(np.eye(4, 9))\n"
        "loaded = {n: m.__file__ for n, m in list(sys.modules.items()) if n.startswith('librosa.') and m.__file__}\n"
        "print(*[n for n, file in loaded.items() if 'guvectorize(' in Path(file).read_text()])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME, check=True)
    assert set(done.stdout.split()) == {f"librosa.{name}" for name in GENERALIZED}
