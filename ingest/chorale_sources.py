"""Sources of chorales: `chorale:NAME` on the built-in organ, `chorale:NAME?soundfont=PATH&program=19` by a soundfont.

Settings are escaped as in a URL, so that a source is one line of text without slashes; `program` lists the programs of the
voices, `reverb=1` adds reverberation.  The file of the soundfont is named, not its content, so that a replaced one is noticed.
"""

from __future__ import annotations

import os
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tonelake.ingest.errors import AudioError

SCHEME = "chorale:"
ORGAN = "organ"


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How chorales are played: by the built-in organ, or by a soundfont."""

    soundfont: Path | None = None        # None: the organ
    programs: tuple[int, ...] = ()       # of General MIDI: one for all voices, or one for each
    reverb: bool = False

    @property
    def timbre(self) -> str:
        """The label that distinguishes renderings of a piece.

        >>> Rendering().timbre, Rendering(soundfont=Path("/sf/TimGM6mb.sf2"), programs=(52, 53), reverb=True).timbre
        ('organ', 'TimGM6mb 52,53 reverb')
        """
        if self.soundfont is None:
            return ORGAN
        name = os.fsencode(self.soundfont.stem).decode("utf-8", "replace")
        return f"{name} {','.join(map(str, self.programs))}{' reverb' if self.reverb else ''}"


@dataclass(frozen=True)
class ChoraleSource:
    """A piece of the corpus and how it is played.

    >>> str(ChoraleSource("bwv1.6.mxl")), str(ChoraleSource("1.mxl", Rendering(soundfont=Path("/a b.sf2"), programs=(19,))))
    ('chorale:bwv1.6.mxl', 'chorale:1.mxl?soundfont=%2Fa%20b.sf2&program=19')
    """

    name: str                            # bwv66.6.mxl
    rendering: Rendering = field(default_factory=Rendering)

    def __str__(self) -> str:
        played = self.rendering
        if played.soundfont is None:
            return f"{SCHEME}{self.name}"
        path = urllib.parse.quote_from_bytes(os.fsencode(played.soundfont), safe="")
        programs = ",".join(map(str, played.programs))
        return f"{SCHEME}{self.name}?soundfont={path}&program={programs}{'&reverb=1' if played.reverb else ''}"


def is_chorale(source: str) -> bool:
    return source.startswith(SCHEME)


def soundfont_of(source: str) -> Path | None:
    """The soundfont that plays a source; None for the organ, and for sources that are not chorales."""
    if not is_chorale(source):
        return None
    with suppress(AudioError):
        return parse_chorale(source).rendering.soundfont
    return None


def parse_chorale(source: str) -> ChoraleSource:
    """The piece and settings that a source names.  Raises AudioError if it is not one that `ChoraleSource` writes."""
    name, mark, settings = source.removeprefix(SCHEME).partition("?")
    if not mark:
        return ChoraleSource(name)
    try:
        given = dict(setting.split("=", 1) for setting in settings.split("&"))
        path = os.fsdecode(urllib.parse.unquote_to_bytes(given["soundfont"]))
        programs = tuple(map(int, given["program"].split(",")))
        found = ChoraleSource(name, Rendering(soundfont=Path(path), programs=programs, reverb=given.get("reverb") == "1"))
    except (KeyError, ValueError):
        found = None
    if found is None or str(found) != source:
        raise AudioError(f"{source}: has settings that cannot be read. Ingest the chorales again")
    return found
