"""A file name from any text, that every file system and player takes."""

from __future__ import annotations

import re

from tonelake.store import printable, to_nfc

MOST_BYTES = 200                         # file systems allow 255, and a suffix follows
UNNAMED = "playlist"
SEPARATING = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
AROUND = " ._"                           # hidden files, the folder above, and ends that Windows drops
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)      # devices on Windows


def safe_name(name: str) -> str:
    """Return a file name without suffix: no folders, no control characters, no device names, at most MOST_BYTES of UTF-8.

    >>> safe_name("AC/DC: Live"), safe_name("../../etc/passwd"), safe_name("con"), safe_name("...")
    ('AC_DC_ Live', 'etc_passwd', '_con', 'playlist')
    """
    text = to_nfc(SEPARATING.sub("_", printable(name))).strip(AROUND)
    text = text.encode("utf-8", "replace")[:MOST_BYTES].decode("utf-8", "ignore").strip(AROUND)
    return f"_{text}" if RESERVED.match(text) else text or UNNAMED


def shown_name(name: str) -> str:
    """Return the name of a playlist as text that UTF-8 can hold, on one line.

    >>> shown_name(" Calm\\nday "), shown_name("")
    ('Calm day', 'playlist')
    """
    return " ".join(printable(" ".join(name.split())).encode("utf-8", "replace").decode().split()) or UNNAMED
