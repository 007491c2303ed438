"""Have clips that were rendered by a soundfont follow its file to another path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tonelake.ingest.chorale_audio import SCORE_DIGITS
from tonelake.ingest.chorale_sources import SCHEME, parse_chorale
from tonelake.ingest.file_stamps import is_gone
from tonelake.ingest.file_table import FileTable
from tonelake.ingest.soundfonts import soundfont_digest
from tonelake.store import Lake, sync_clips


def follow_soundfont(lake: Lake, files: FileTable, soundfont: Path) -> None:
    """Give clips of a soundfont whose file is gone the path of `soundfont`, if that has the same bytes."""
    stored = lake.paths.read(["source", "recording", "digest"], where=f"source LIKE '{SCHEME}%?soundfont=%'")
    moved = []
    for source, recording, digest in stored.iter_rows():
        if digest[SCORE_DIGITS:] != soundfont_digest(soundfont) or not is_gone(source):
            continue
        piece = parse_chorale(source)
        now = str(replace(piece, rendering=replace(piece.rendering, soundfont=soundfont)))
        files.note_read(now, None, recording, digest, {}, None)
        moved.append(source)
    if moved:
        files.note_gone(moved)
        files.flush()
        sync_clips(lake)
