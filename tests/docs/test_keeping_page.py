"""The systemd unit in docs/keeping.md is valid, and the command in it exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/keeping.md"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_of_a_watch_is_valid(tmp_path):
    unit = re.search(r"```ini\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert unit is not None and "ExecStart=%h/.local/bin/tonelake watch" in unit[1]
    file = tmp_path / "tonelake-watch.service"
    file.write_text(unit[1].replace("%h/.local/bin/tonelake", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", file], capture_output=True, text=True, env={"XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
