"""Locks: exclusive between processes and threads, released by a process that dies, and never in a library's own files."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import filelock
import pytest

from tonelake.store import InputError, cache_folder
from tonelake.store.locks import exclusive_lock, lock_of_module
from tonelake.store.numba_cache import compiler_lock

HOME = Path(__file__).resolve().parents[2]


def test_the_cache_folder_is_that_of_the_variable_else_that_of_the_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" and not cache_folder().exists()
    monkeypatch.delenv("TONELAKE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder().name in ("tonelake", "Cache")
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "xdg" / "tonelake"


def test_a_second_process_is_refused_or_waits_until_the_first_one_dies(tmp_path):
    file = tmp_path / "lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tonelake.store import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True, cwd=HOME)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "in\n"
        with pytest.raises(InputError, match="busy"), exclusive_lock(file, "busy"):
            pass
        waiting = threading.Thread(target=lambda: exclusive_lock(file).__enter__())
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    finally:
        holder.kill()
        holder.communicate()
    waiting.join(10)
    assert not waiting.is_alive()


def test_the_lock_of_a_module_is_a_file_in_the_cache_folder_and_the_module_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "cache"))
    module = tmp_path / "module.py"
    module.write_bytes(b"as it was")
    module.chmod(0o444)
    before = module.stat()
    order = []

    def second():
        with compiler_lock(module):
            order.append("second")

    waiting = threading.Thread(target=second)
    with pytest.raises(KeyboardInterrupt), compiler_lock(module):
        waiting.start()
        waiting.join(0.3)
        order.append("first")
        raise KeyboardInterrupt
    waiting.join(10)
    assert order == ["first", "second"]
    assert (module.stat().st_mtime_ns, module.read_bytes()) == (before.st_mtime_ns, b"as it was")
    assert lock_of_module(module).parent == tmp_path / "cache" / "locks" and lock_of_module(module).exists()
    assert lock_of_module(module) != lock_of_module(tmp_path / "other" / "module.py")


def test_a_cache_folder_that_cannot_be_written_leaves_the_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    found = lock_of_module(tmp_path / "module.py")
    assert found.parent.parent == tmp_path and found.parent.is_dir()
    with compiler_lock(tmp_path / "module.py"), pytest.raises(InputError), exclusive_lock(found, "busy"):
        pass


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), NotImplementedError("no flock")])
def test_without_locks_of_the_file_system_work_goes_ahead_unlocked(tmp_path, monkeypatch, error):
    def fail(self, **settings):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with exclusive_lock(tmp_path / "lock", "busy"), exclusive_lock(tmp_path / "lock"):
        pass
