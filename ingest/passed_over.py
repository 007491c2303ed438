"""Describe the files of a folder that ingest does not read, by kind, suffix and number."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tonelake.ingest.audio_files import SUFFIXES, audio_files, clean_name

SCORES = "MIDI files and scores"
MUSIC_KINDS = {                          # kind: suffixes
    "modules": "mod xm it s3m stm mtm med 669 umx mptm far ult okt ptm nsf spc sid vgm vgz ay gbs",
    "video": "mp4 m4v mkv webm mov avi wmv flv f4v mpg mpeg m2v ts m2ts mts vob ogv 3gp 3g2 rm rmvb divx asf",
    "playlists": "m3u m3u8 pls cue xspf wpl asx zpl smil jspf",
    SCORES: "mid midi kar rmi mxl musicxml mscz mscx krn abc gp gp3 gp4 gp5 gpx sib ly",
    "other audio": (
        "wma m4b m4p m4r mp1 mp2 mpga mpc ape wv tta tak ofr ofs shn la ac3 ec3 eac3 dts dtshd truehd thd mlp dsf dff caf "
        "amr awb ra ram mka weba au snd aifc w64 rf64 bwf voc gsm spx aa aax oma omg at3 vox 8svx iff sd2 adts latm loas dss"
    ),
}
KIND_OF = {f".{suffix}": kind for kind, suffixes in MUSIC_KINDS.items() for suffix in suffixes.split()}
SHOWN = 6                                # suffixes named for each kind


def note_on_folder(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> tuple[str, ...]:
    """A note on modules, video, playlists and other audio in a data set's folder; its tables and scores belong to the set."""
    counts: Counter[str] = Counter()
    for _ in audio_files(folder, suffixes, counts):
        pass
    music = {suffix: count for suffix, count in counts.items() if KIND_OF.get(suffix, SCORES) != SCORES}
    return passed_over_note(Counter(music))


def passed_over_note(counts: Counter[str]) -> tuple[str, ...]:
    """One note on files that were passed over, from their number by suffix; no note if none has one.

    >>> passed_over_note(Counter({".mp4": 2, ".xm": 1, ".jpg": 40}))
    ('3 files left out by suffix: 1 modules (1 xm), 2 video (2 mp4); and 40 other files (40 jpg)',)
    """
    by_kind: dict[str, Counter[str]] = {kind: Counter() for kind in MUSIC_KINDS}
    others: Counter[str] = Counter()
    for suffix, count in counts.items():
        if suffix:
            by_kind.get(KIND_OF.get(suffix, ""), others)[clean_name(suffix.removeprefix("."))] += count
    music = [f"{found.total():,} {kind} ({_listed(found)})" for kind, found in by_kind.items() if found]
    rest = f"{others.total():,} other files ({_listed(others)})" if others else ""
    if not music:
        return (f"{rest} left out by suffix",) if rest else ()
    total = sum(found.total() for found in by_kind.values())
    return (f"{total:,} files left out by suffix: {', '.join(music)}" + (f"; and {rest}" if rest else ""),)


def _listed(counts: Counter[str]) -> str:
    """Suffixes with their numbers, the most frequent ones first."""
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix}" for suffix, count in shown[:SHOWN]) + (", …" if len(shown) > SHOWN else "")
