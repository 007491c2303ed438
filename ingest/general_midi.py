"""The 128 instruments of General MIDI 1, by number (0 to 127) and name.  MMA, General MIDI System Level 1 (RP-003)."""

from __future__ import annotations

from collections.abc import Sequence

from tonelake.store import InputError

PROGRAMS = (
    "Acoustic Grand Piano", "Bright Acoustic Piano", "Electric Grand Piano", "Honky-tonk Piano", "Electric Piano 1",
    "Electric Piano 2", "Harpsichord", "Clavi",
    "Celesta", "Glockenspiel", "Music Box", "Vibraphone", "Marimba", "Xylophone", "Tubular Bells", "Dulcimer",
    "Drawbar Organ", "Percussive Organ", "Rock Organ", "Church Organ", "Reed Organ", "Accordion", "Harmonica",
    "Tango Accordion",
    "Acoustic Guitar (nylon)", "Acoustic Guitar (steel)", "Electric Guitar (jazz)", "Electric Guitar (clean)",
    "Electric Guitar (muted)", "Overdriven Guitar", "Distortion Guitar", "Guitar Harmonics",
    "Acoustic Bass", "Electric Bass (finger)", "Electric Bass (pick)", "Fretless Bass", "Slap Bass 1", "Slap Bass 2",
    "Synth Bass 1", "Synth Bass 2",
    "Violin", "Viola", "Cello", "Contrabass", "Tremolo Strings", "Pizzicato Strings", "Orchestral Harp", "Timpani",
    "String Ensemble 1", "String Ensemble 2", "Synth Strings 1", "Synth Strings 2", "Choir Aahs", "Voice Oohs", "Synth Voice",
    "Orchestra Hit",
    "Trumpet", "Trombone", "Tuba", "Muted Trumpet", "French Horn", "Brass Section", "Synth Brass 1", "Synth Brass 2",
    "Soprano Sax", "Alto Sax", "Tenor Sax", "Baritone Sax", "Oboe", "English Horn", "Bassoon", "Clarinet",
    "Piccolo", "Flute", "Recorder", "Pan Flute", "Blown Bottle", "Shakuhachi", "Whistle", "Ocarina",
    "Lead 1 (square)", "Lead 2 (sawtooth)", "Lead 3 (calliope)", "Lead 4 (chiff)", "Lead 5 (charang)", "Lead 6 (voice)",
    "Lead 7 (fifths)", "Lead 8 (bass + lead)",
    "Pad 1 (new age)", "Pad 2 (warm)", "Pad 3 (polysynth)", "Pad 4 (choir)", "Pad 5 (bowed)", "Pad 6 (metallic)",
    "Pad 7 (halo)", "Pad 8 (sweep)",
    "FX 1 (rain)", "FX 2 (soundtrack)", "FX 3 (crystal)", "FX 4 (atmosphere)", "FX 5 (brightness)", "FX 6 (goblins)",
    "FX 7 (echoes)", "FX 8 (sci-fi)",
    "Sitar", "Banjo", "Shamisen", "Koto", "Kalimba", "Bagpipe", "Fiddle", "Shanai",
    "Tinkle Bell", "Agogo", "Steel Drums", "Woodblock", "Taiko Drum", "Melodic Tom", "Synth Drum", "Reverse Cymbal",
    "Guitar Fret Noise", "Breath Noise", "Seashore", "Bird Tweet", "Telephone Ring", "Helicopter", "Applause", "Gunshot",
)
MAX_PROGRAMS = 15                        # MIDI's 16 channels without the one for drums


def parse_programs(programs: str | int | Sequence[str | int]) -> tuple[int, ...]:
    """Numbers of General MIDI programs, one for each voice, or a single one for all.

    `programs`: a number or name, several separated by commas, or a sequence of numbers and names.  Upper and lower case, and
    anything but letters and digits, make no difference in a name.  Raises InputError if one is unknown or out of range.

    >>> parse_programs("church organ"), parse_programs("52, 53,Violin"), parse_programs([19, 19])
    ((19,), (52, 53, 40), (19,))
    """
    listed = programs.split(",") if isinstance(programs, str) else [programs] if isinstance(programs, int) else list(programs)
    if not 1 <= len(listed) <= MAX_PROGRAMS:
        raise InputError(f"--program: {len(listed)} programs are given. Give one for all voices, or up to {MAX_PROGRAMS}")
    found = tuple(_number(str(one).strip()) for one in listed)
    return found[:1] if len(set(found)) == 1 else found


def _number(program: str) -> int:
    """The number of one program."""
    if program.isascii() and program.lstrip("+-").isdigit():
        if not 0 <= int(program) < len(PROGRAMS):
            raise InputError(f"--program {program}: is out of range. General MIDI has 0 (piano) to 127; 19 is the church organ")
        return int(program)
    wanted = _plain(program)
    exact = [number for number, name in enumerate(PROGRAMS) if _plain(name) == wanted]
    near = [number for number, name in enumerate(PROGRAMS) if wanted and wanted in _plain(name)]
    if len(found := exact or near) == 1:
        return found[0]
    if found:
        choices = ", ".join(f"{number} {PROGRAMS[number]}" for number in found[:8])
        raise InputError(f"--program {program!r}: fits several instruments of General MIDI. Choose one of {choices}")
    raise InputError(f"--program {program!r}: is not an instrument of General MIDI. Give its number, 0 to 127")


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
