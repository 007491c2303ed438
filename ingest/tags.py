"""Read title, artist and album from a file's tags.  Tags are untrusted text: they are cleaned and cut to a maximum length.

tinytag is used rather than mutagen, which is GPL-2.
"""

from __future__ import annotations

from pathlib import Path

MAX_LENGTH = 300


def read_tags(path: Path) -> dict[str, str]:
    """Title, artist and album, as far as the file has them; {} if its tags cannot be read."""
    from tinytag import TinyTag
    from tinytag.tinytag import TinyTagException

    try:
        tags = TinyTag.get(str(path), image=False, duration=False)
    except (TinyTagException, OSError, ValueError, KeyError, IndexError, OverflowError, MemoryError):
        return {}
    found = {name: clean(getattr(tags, name, None)) for name in ("title", "artist", "album")}
    return {name: text for name, text in found.items() if text}


def clean(text: str | None) -> str:
    """Text on one line, without control characters, at most 300 characters.

    >>> clean("  Ok\\x00 Computer\\n ")
    'Ok Computer'
    """
    if not isinstance(text, str):
        return ""
    kept = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(kept.split())[:MAX_LENGTH]
