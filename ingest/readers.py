"""What published sets list: one reader a set, from the folder it unpacks to to (file, track, labels).

Layouts are as the sets' own papers and repositories have them; a reader finds its tables anywhere below the folder, since
people unpack archives in many ways.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonelake.ingest.folder import SUFFIXES, audio_files
from tonelake.ingest.tables import read_lines, read_rows, read_table
from tonelake.store import InputError, to_nfc

File = tuple[Path, str, dict[str, Any]]                              # path, track, labels
AUDIO = SUFFIXES | {".au"}
SIDES = {"train": "train", "training": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}


@dataclass(frozen=True)
class Listed:
    """What a reader found."""

    files: list[File]
    layout: str                          # what the folder should look like, for who gave another
    notes: tuple[str, ...] = ()


# -- genres


GTZAN_FILE = re.compile(r"([a-z]+)\.(\d{5})\.(wav|au|mp3|flac)")
GTZAN_BAD = {"jazz.00054"}               # does not decode in the copies that go round


def gtzan(folder: Path) -> Listed:
    """Tzanetakis and Cook 2002: `genres*/jazz/jazz.00042.wav`.

    Split: the fault-filtered one (Kereliuk, Sturm and Larsen 2015) from `{train,valid,test}_filtered.txt`.
    """
    lists = {side: find(folder, f"{side}_filtered.txt") for side in ("train", "valid", "test")}
    sides = {
        Path(line.strip()).stem: side
        for side, path in lists.items() if path is not None
        for line in read_lines(path) if line.strip()
    }
    files, bad = [], 0
    for path in audio_below(folder):
        found = GTZAN_FILE.fullmatch(path.name)
        if found is None:
            continue
        if path.stem in GTZAN_BAD:
            bad += 1
            continue
        labels = {"genre": found[1]}
        files.append((path, path.stem, labels | ({"split": sides[path.stem]} if path.stem in sides else {})))
    notes = [f"{bad} file left out that is known not to decode ({', '.join(sorted(GTZAN_BAD))})"] if bad else []
    if not sides:
        notes.append(
            "no split: put train_filtered.txt, valid_filtered.txt and test_filtered.txt, the lists of the fault-filtered "
            "GTZAN, into the folder; without them artists and repeated recordings stand on both sides"
        )
    return Listed(files, "genres/jazz/jazz.00042.wav", tuple(notes))


FMA_BAD = {"099134", "108925", "133297"}                             # of fma_small: cut off so that they do not decode


def fma(folder: Path) -> Listed:
    """Defferrard et al. 2017: `fma_small/000/000002.mp3` and `fma_metadata/tracks.csv`, whose header has two rows."""
    table = find(folder, "tracks.csv")
    if table is None:
        raise InputError(f"{folder} has no fma_metadata/tracks.csv: unpack fma_metadata.zip beside the audio")
    genres = fma_genres(folder)
    audio = {path.stem: path for path in audio_below(folder) if path.stem.isdigit()}
    files = []
    rows = read_rows(table)
    upper, lower = next(rows, []), next(rows, [])
    place = {(a, b): i for i, (a, b) in enumerate(zip(upper, lower, strict=False))}
    wanted = {
        "title": ("track", "title"), "artist": ("artist", "name"), "album": ("album", "title"),
        "genre": ("track", "genre_top"), "split": ("set", "split"),
    }
    absent = [f"{a}/{b}" for a, b in (*wanted.values(), ("track", "genres_all")) if (a, b) not in place]
    if absent:
        raise InputError(f"{table.name}: has no column {', '.join(absent)}: it is not FMA's table of tracks")
    for row in rows:
        stem = row[0].zfill(6)
        if not row[0].isdigit() or stem not in audio or stem in FMA_BAD:
            continue
        labels: dict[str, Any] = {name: row[place[key]] for name, key in wanted.items() if row[place[key]]}
        if "split" in labels:
            labels["split"] = SIDES.get(labels["split"], labels["split"])
        numbers = re.findall(r"\d+", row[place["track", "genres_all"]])
        if numbers:
            labels["genres"] = sorted({genres.get(number, number) for number in numbers})
        files.append((audio[stem], stem, labels))
    left = sorted(FMA_BAD & audio.keys())
    notes = (f"{len(left)} files left out that are known not to decode ({', '.join(left)})",) if left else ()
    return Listed(files, "fma_small/000/000002.mp3 beside fma_metadata/tracks.csv", notes)


def fma_genres(folder: Path) -> dict[str, str]:
    """Names of genres by number, where `genres.csv` is there."""
    path = find(folder, "genres.csv")
    if path is None:
        return {}
    rows = read_rows(path)
    header = next(rows, [])
    if not {"genre_id", "title"} <= set(header):
        raise InputError(f"{path.name}: has no columns genre_id and title: it is not FMA's, put that of fma_metadata.zip there")
    number, title = header.index("genre_id"), header.index("title")
    return {row[number]: row[title] for row in rows if row[number] and row[title]}


# -- tags


def jamendo(folder: Path) -> Listed:
    """Bogdanov et al. 2019: audio `48/948.mp3` (or `.low.mp3`), `autotagging*.tsv`, whose rows end in any number of tags.

    Split: split-0 of whatever `autotagging*-{train,validation,test}.tsv` are there, of all tags before those of one kind.
    """
    tables = sorted(folder.rglob("autotagging*.tsv"), key=lambda path: (len(path.name), str(path)))
    tables = [path for path in tables if not path.parent.name.startswith("split-") or path.parent.name == "split-0"]
    if not tables:
        raise InputError(f"{folder} has no autotagging.tsv: put the set's data/ beside the audio")
    rows: dict[str, dict[str, Any]] = {}
    for table in tables:
        side = SIDES.get(table.stem.rpartition("-")[2])
        for place, artist, album, path, tags in jamendo_rows(table):
            labels = rows.setdefault(path, {"artist": artist, "album": album, "tags": set()})
            labels["tags"].update(tags)
            if side is not None:
                labels.setdefault("split", side)
            labels.setdefault("track", place)
    audio = {path.name.split(".")[0]: path for path in audio_below(folder)}
    files = []
    for path, labels in rows.items():
        track, tags = labels.pop("track"), sorted(labels.pop("tags"))
        for kind, column in (("genre", "genres"), ("instrument", "instruments"), ("mood/theme", "moods")):
            own = [tag.partition("---")[2] for tag in tags if tag.partition("---")[0] == kind]
            labels |= {column: own} if own else {}
        labels["tags"] = tags
        files.append((audio.get(Path(path).stem) or inside(folder, path), track, labels))
    split = any("split" in labels for _, _, labels in files)
    notes = () if split else ("no split: put data/splits/split-0 into the folder",)
    return Listed(files, "48/948.mp3 beside data/autotagging.tsv", notes)


def jamendo_rows(table: Path) -> Iterator[tuple[str, str, str, str, list[str]]]:
    """(track, artist, album, path, tags) of a table."""
    for number, line in enumerate(read_lines(table)):
        cells = line.rstrip("\n").split("\t")
        if number == 0 and cells[:4] != ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH"]:
            raise InputError(f"{table.name}: does not begin with TRACK_ID, ARTIST_ID, ALBUM_ID, PATH: it is not MTG-Jamendo's")
        if number and len(cells) >= 5:
            yield cells[0], cells[1], cells[2], cells[3], [tag for tag in cells[5:] if tag]


MTT_BAD = (                              # of no length
    "6/norine_braun-now_and_then-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_trio_xiv_ordre_couperin-88-117.mp3",
)
MTT_SIDES = {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}


def magnatagatune(folder: Path) -> Listed:
    """Law et al. 2009: `annotations_final.csv`, tab-separated, a column a tag, and `mp3_path`.

    Split by folder as everyone since Dieleman and Schrauwen 2014: 0-b train, c valid, d-f test.
    """
    table = find(folder, "annotations_final.csv")
    if table is None:
        raise InputError(f"{folder} has no annotations_final.csv: put it beside the folders 0 to f")
    root = next((path for path in (table.parent, *sub_folders(folder)) if (path / "0").is_dir()), table.parent)
    files, bad = [], 0
    rows = read_rows(table, "\t")
    header = next(rows, [])
    if header[:1] != ["clip_id"] or header[-1:] != ["mp3_path"]:
        raise InputError(f"{table.name}: does not run from clip_id to mp3_path: it is not MagnaTagATune's")
    for row in rows:
        path = row[-1]
        if path in MTT_BAD:
            bad += 1
            continue
        tags = [name for name, cell in zip(header[1:-1], row[1:-1], strict=True) if cell == "1"]
        artist, _, rest = Path(path).stem.partition("-")
        labels = {"tags": tags, "split": MTT_SIDES.get(path[:1]), "artist": artist, "album": rest.partition("-")[0]}
        # The clips of a song differ by the seconds at the end of their name alone.
        track = re.sub(r"-\d+-\d+$", "", Path(path).stem)
        files.append((inside(root, path), track, {k: v for k, v in labels.items() if v is not None}))
    notes = (f"{bad} files left out that are known to be empty",) if bad else ()
    return Listed(files, "annotations_final.csv beside the folders 0 to f", notes)


# -- notes and keys


def nsynth(folder: Path) -> Listed:
    """Engel et al. 2017: `nsynth-{train,valid,test}/{audio/NAME.wav,examples.json}`."""
    files = []
    for table in sorted(folder.rglob("examples.json")):
        side = SIDES.get(table.parent.name.rpartition("-")[2])
        try:
            notes = json.loads(table.read_text(encoding="utf-8"))
            for name, note in notes.items():
                labels = {
                    "pitch": int(note["pitch"]), "velocity": int(note["velocity"]),
                    "instrument": str(note["instrument_str"]), "family": str(note["instrument_family_str"]),
                    "source_of_sound": str(note["instrument_source_str"]), "qualities": list(map(str, note["qualities_str"])),
                }
                labels |= {"split": side} if side else {}
                files.append((table.parent / "audio" / f"{Path(name).name}.wav", str(note["instrument_str"]), labels))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{table}: is not NSynth's table of notes ({type(error).__name__}: {error})") from error
    return Listed(files, "nsynth-train/examples.json beside nsynth-train/audio/")


SHARPS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#", "Cb": "B", "Fb": "E", "E#": "F", "B#": "C"}
KEY = re.compile(r"\s*([A-Ga-g])([#b♯♭]?)\s+(major|minor|maj|min)\b", re.IGNORECASE)


def giantsteps(folder: Path) -> Listed:
    """Knees et al. 2015: `audio/ID.LOFI.mp3` and `annotations/key/ID.LOFI.key`; MTG keys have `annotations.txt` instead.

    GiantSteps is what others test on: its split is test, that of the MTG keys train.
    """
    keys: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.rglob("*.key")):
        found = parse_key(path.read_text(encoding="utf-8", errors="replace"))
        if found is not None:
            keys.setdefault(path.name.split(".")[0], (found, "test"))
    for path in sorted(folder.rglob("annotations.txt")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            cells = line.split("\t")
            found = parse_key(cells[1]) if len(cells) > 1 else None
            if found is not None:
                keys.setdefault(cells[0].strip().split(".")[0], (found, "train"))
    if not keys:
        raise InputError(f"{folder} has neither annotations/key/*.key nor annotations.txt with keys")
    files = [
        (path, path.name.split(".")[0], {"key": keys[stem][0], "split": keys[stem][1]})
        for path in audio_below(folder) if (stem := path.name.split(".")[0]) in keys
    ]
    return Listed(files, "audio/10089.LOFI.mp3 beside annotations/key/10089.LOFI.key")


def parse_key(text: str) -> str | None:
    """A key by one name, sharps for flats; None where the text is no single key.

    >>> parse_key("Db minor"), parse_key("f# major"), parse_key("-")
    ('C# minor', 'F# major', None)
    """
    found = KEY.fullmatch(text.strip().split("|")[0].strip()) or KEY.match(text)
    if found is None:
        return None
    tonic = found[1].upper() + {"♯": "#", "♭": "b"}.get(found[2], found[2])
    return f"{SHARPS.get(tonic, tonic)} {'minor' if found[3].lower().startswith('min') else 'major'}"


# -- meters


def meter2800(folder: Path) -> Listed:
    """METER2800: `data_{train,val,test}_{2,4}_classes.{csv,tab}`; audio is matched by its name without suffix.

    Columns: label, meter, alt_meter and split of the 4 classes; label_2 and split_2 of the 2.  Where two collections have
    files of one name, folders tell them apart, those of audio files too, and tracks bear the collection's name.
    """
    listed: list[tuple[str, str, Path, dict[str, Any]]] = []
    for classes, suffix in ((4, ""), (2, "_2")):
        for word in ("train", "val", "test"):
            table = find(folder, f"data_{word}_{classes}_classes.csv") or find(folder, f"data_{word}_{classes}_classes.tab")
            if table is None:
                continue
            for row in read_table(table).to_dicts():
                if row.get("filename") is None or row.get("label") is None:
                    raise InputError(f"{table.name}: needs columns filename and label: it has {', '.join(row)}")
                listed.append((suffix, SIDES[word], Path(to_nfc(str(row["filename"]))), row))
    if not listed:
        raise InputError(f"{folder} has no data_train_4_classes.csv (or .tab, or of 2 classes): they come with METER2800")
    # Within the tables of one kind: those of the other kind list the same files, perhaps from other folders.
    names = {(suffix, path.parent.name, path.stem) for suffix, _, path, _ in listed}
    shared = {stem for (_, stem), count in Counter((suffix, stem) for suffix, _, stem in names).items() if count > 1}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for suffix, side, path, row in listed:
        collection = path.parent.name
        labels = rows.setdefault((collection if path.stem in shared else "", path.stem), {"collection": collection})
        labels[f"label{suffix}"], labels[f"split{suffix}"] = str(row["label"]), side
        labels |= {key: str(row[key]) for key in ("meter", "alt_meter") if row.get(key) is not None}
    audio: dict[str, list[Path]] = {}
    for path in audio_below(folder):
        audio.setdefault(to_nfc(path.stem), []).append(path)
    files = []
    for (collection, stem), labels in rows.items():
        found = [path for path in audio.get(stem, []) if not collection or to_nfc(path.parent.name) == collection]
        files.append((
            found[-1] if found else folder / collection / f"{stem}.wav", f"{collection}/{stem}" if collection else stem,
            {name: value for name, value in labels.items() if value},
        ))
    return Listed(files, "data_train_4_classes.csv and audio below it")


# -- what they share


def find(folder: Path, name: str) -> Path | None:
    """A file of that name in or below a folder, the nearest one."""
    return min(folder.rglob(name), key=lambda path: (len(path.parts), str(path)), default=None)


def sub_folders(folder: Path) -> list[Path]:
    return [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]


def audio_below(folder: Path) -> Iterator[Path]:
    """Audio files below a folder, by name, those of old sets included."""
    return (path for path in audio_files(folder, AUDIO) if path.is_file())


def inside(folder: Path, path: str) -> Path:
    """A path of a table, which may not lead out of the folder.  Raises InputError."""
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise InputError(f"a table of {folder} names the file {path!r}, which is not in it")
    return folder / path
