"""An opened lake, and how it tells of what it is doing."""

from __future__ import annotations

import sys
from pathlib import Path

from tonelake import ingest
from tonelake.store import Lake, silent_progress


class Opened:
    """What every part of `tonelake.Tonelake` stands on."""

    def __init__(
        self, path: str | Path = "lake", *, create: bool = True, older: bool = False, progress: bool = False
    ) -> None:
        self.lake = Lake(path, create=create, older=older)
        self._show = progress

    def _epoch(self, line: dict[str, float]) -> None:
        """Say what an epoch of training came to, where progress is shown."""
        if self._show:
            from tonelake.render import epoch_line

            print(epoch_line(line), file=sys.stderr)

    def _step(self, name: str) -> None:
        """Say what a long answer is at, where progress is shown."""
        from tonelake.render import status_line

        if self._show:
            status_line(name)

    def _progress(self):
        from tonelake.render import progress_bar

        return progress_bar if self._show else silent_progress

    def __repr__(self) -> str:
        return f"Tonelake({self.lake.uri!r})"
