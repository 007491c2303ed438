"""Data sets by their loaders in mirdata: real loaders on small folders in the layouts of the sets, with indexes in its form."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path

import pytest
from sounds import encode, melody, write
from typer.testing import CliRunner

from tonelake import ingest
from tonelake.cli import app
from tonelake.store import InputError

pytest.importorskip("mirdata", reason="the extra `mirdata`")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def listed(home, path):
    """A file as an index lists it: path and MD5; a file that does not exist with that of nothing."""
    file = home / path
    return [path, hashlib.md5(file.read_bytes() if file.is_file() else b"").hexdigest()]


def put(home, path, content):
    """Write a sound, or text, below a set's folder."""
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        file.write_text(content, encoding="utf-8")
    else:
        (encode if file.suffix == ".mp3" else write)(file, melody(2.0, seed=content))


def index(home, name, tracks, multitracks=None, version="1.0"):
    """Write an index in mirdata's form: {track: {kind: path or None}}."""
    def entry(files):
        return {kind: listed(home, path) if path else [None, None] for kind, path in files.items()}

    content = {"version": version, "tracks": {track: entry(files) for track, files in tracks.items()}}
    if multitracks:
        content["multitracks"] = {
            track: {"tracks": files.pop("tracks")} | entry(files) for track, files in multitracks.items()
        }
    path = home / name
    path.write_text(json.dumps(content))
    return path


def rows_of(lake):
    return {row["track"]: row for row in lake.clips.read().to_dicts()}


@pytest.fixture
def gtzan(tmp_path):
    """Three tracks of GTZAN, one without its file, two with a tempo."""
    home = tmp_path / "gtzan"
    tracks = {}
    for number, name in enumerate(("country.00000", "hiphop.00000", "rock.00000")):
        genre = name.split(".")[0]
        files = {
            "audio": f"gtzan_genre/genres/{genre}/{name}.wav", "beats": f"annotations/beats/gtzan_{genre}_00000.beats",
            "tempo": f"annotations/tempo/gtzan_{genre}_00000.bpm",
        }
        if genre != "rock":
            put(home, files["audio"], number)
            put(home, files["beats"], "0.5 1\n1.0 2\n")
            put(home, files["tempo"], f"{90 + number}.5\n")
        tracks[name] = files
    return home, index(home, "gtzan_genre_index_1.0.json", tracks)


def test_tracks_are_clips_with_their_scalar_attributes_and_missing_files_are_counted(lake, gtzan):
    home, _ = gtzan                      # the index lies in the folder under mirdata's name for it
    report = ingest.ingest_mirdata(lake, "gtzan_genre", home, workers=1)
    assert {track: (row["genre"], row["dataset"]) for track, row in rows_of(lake).items()} == {
        "country.00000": ("country", "gtzan_genre"), "hiphop.00000": ("hip-hop", "gtzan_genre"),
    }
    assert report.notes[0] == "1 of 3 audio files are missing: gtzan_genre/genres/rock/rock.00000.wav"
    assert report.notes[-1] == "files of annotations with times are not read: beats, tempo"
    # The loader of mirdata 1.0 reads the tempo by a call that NumPy 2.4 refuses: the label is there, or its loss is reported.
    tempos = {row.get("tempo") for row in rows_of(lake).values()}
    assert tempos == {90.5, 91.5} or any("could not read tempo" in note for note in report.notes)
    assert not {"audio_path", "beats_path", "beats"} & set(lake.clips.columns())


def test_a_checksum_that_differs_is_a_recorded_failure_unless_validation_is_off(lake, gtzan):
    home, _ = gtzan
    put(home, "gtzan_genre/genres/country/country.00000.wav", 9)
    put(home, "annotations/tempo/gtzan_hiphop_00000.bpm", "100\n")
    report = ingest.ingest_mirdata(lake, "gtzan_genre", home, workers=1)
    assert (report.added.new, report.failed) == (1, 1) and set(rows_of(lake)) == {"hiphop.00000"}
    failure = lake.failures.read().row(0, named=True)
    assert "country.00000.wav: its MD5 differs from mirdata's index. Download it again" in failure["error"]
    assert "1 audio files differ from mirdata's index and are left out" in report.notes
    assert "1 files of annotations differ from mirdata's index; their labels are used" in report.notes
    report = ingest.ingest_mirdata(lake, "gtzan_genre", home, validate=False, workers=1)
    assert (report.added.new, report.failed) == (1, 0) and lake.failures.read().is_empty()


def test_several_recordings_of_a_track_are_clips_of_it_and_one_kind_can_be_chosen(lake, tmp_path):
    """GuitarSet: a microphone, a mix of pickups and two files of six channels, none of them called `audio`."""
    home, name = tmp_path / "guitarset", "03_BN3-119-G_solo"
    files = {
        "audio_mic": f"audio_mono-mic/{name}_mic.wav", "audio_mix": f"audio_mono-pickup_mix/{name}_mix.wav",
        "jams": f"annotation/{name}.jams", "audio_hex": f"audio_hex-pickup_original/{name}_hex.wav", "audio_hex_cln": None,
    }
    for number, kind in enumerate(("audio_mic", "audio_mix", "jams")):
        put(home, files[kind], "{}" if kind == "jams" else number)
    index(home, "guitarset_index_1.1.0.json", {name: files})
    ingest.ingest_mirdata(lake, "guitarset", home, audio=["audio_mic"], workers=1)
    row = lake.clips.read().row(0, named=True)
    assert (row["track"], row["audio"], row["player_id"], row["mode"], row["style"], row["tempo"]) == (
        name, "audio_mic", "03", "solo", "Bossa Nova", 119.0,
    )
    report = ingest.ingest_mirdata(lake, "guitarset", home, workers=1)
    assert sorted(lake.clips.read()["audio"]) == ["audio_mic", "audio_mix"] and set(lake.clips.read()["track"]) == {name}
    assert report.added.known == 1
    assert report.notes[0] == f"1 of 3 audio files are missing: {files['audio_hex']}"
    with pytest.raises(InputError, match=r"--audio mic: the index has no such audio files\. Choose from audio_hex, audio_mic"):
        ingest.ingest_mirdata(lake, "guitarset", home, audio=["mic"])


def test_multitracks_their_stems_and_the_published_split_are_kept(lake, tmp_path):
    home = tmp_path / "slakh"
    track, mix = "Track00001-S00", "Track00001"
    base = "slakh2100_flac_redux/train/Track00001"
    put(home, f"{base}/stems/S00.flac", 1)
    put(home, f"{base}/mix.flac", 2)
    put(home, f"{base}/metadata.yaml", "stems:\n  S00: {inst_class: Bass, is_drum: false, program_num: 33, "
        "integrated_loudness: -20.5, midi_program_name: Fretless, plugin_name: x.nkm, audio_rendered: true, midi_saved: true}\n"
        "UUID: u\nlmd_midi_dir: d\nnormalized: true\noverall_gain: 0.5\n")
    midi = {"midi": f"{base}/MIDI/S00.mid", "metadata": f"{base}/metadata.yaml"}
    index(
        home, "slakh_index_2100-redux.json", {track: {"audio": f"{base}/stems/S00.flac", **midi}},
        {mix: {"tracks": [track], "mix": f"{base}/mix.flac", "midi": None, "metadata": f"{base}/metadata.yaml"}},
        version="2100-redux",
    )
    ingest.ingest_mirdata(lake, "slakh", home, audio=["audio", "mix"], workers=1)
    found = rows_of(lake)
    assert found[track]["multitrack"] == mix and found[track]["instrument"] == "Bass"
    assert {name: row["split"] for name, row in found.items()} == {track: "train", mix: "train"}
    assert found[mix]["audio"] == "mix" and found[track]["audio"] is None


def test_a_split_that_a_loader_computes_is_used(lake, tmp_path):
    """MTG-Jamendo's moods: the loader reads the tables of split-0."""
    home = tmp_path / "jamendo"
    put(home, "audios/48/948.mp3", 1)
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    row = "track_0000948\tartist_000087\talbum_000149\t48/948.mp3\t212.7\tmood/theme---epic"
    put(home, "data/autotagging_moodtheme.tsv", f"{header}\n{row}\n")
    for number in range(5):
        for side in ("train", "validation", "test"):
            rows = f"{row}\n" if side == ("validation" if number == 0 else "test") else ""
            put(home, f"data/splits/split-{number}/autotagging_moodtheme-{side}.tsv", f"{header}\n{rows}")
    import mirdata

    name = mirdata.initialize("mtg_jamendo_autotagging_moodtheme", data_home=str(home)).index_path.rsplit("/", 1)[-1]
    index(home, name, {"track_0000948": {"audio": "audios/48/948.mp3"}})
    ingest.ingest_mirdata(lake, "mtg_jamendo_autotagging_moodtheme", home, workers=1)
    found = rows_of(lake)["track_0000948"]
    assert (found["split"], found["artist_id"], found["tags"]) == ("valid", "artist_000087", ["epic"])


def test_labels_whose_table_is_missing_are_named_once_and_the_clips_are_kept(lake, tmp_path):
    """Medley-solos-DB has its labels in a table of metadata."""
    home, track = tmp_path / "medley", "d07b1fc0-567d-52c2-fef4-239f31c9d40e"
    path = f"audio/Medley-solos-DB_validation-3_{track}.wav"
    put(home, path, 1)
    index(home, "own.json", {track: {"audio": path}})
    report = ingest.ingest_mirdata(lake, "medley_solos_db", home, index=home / "own.json", workers=1)
    assert report.added.new == 1 and len(report.notes) == 1
    assert report.notes[0].startswith("mirdata could not read instrument, instrument_id, song_id, subset (FileNotFoundError")
    put(
        home, "annotation/Medley-solos-DB_metadata.csv",
        f"subset,instrument,instrument_id,song_id,uuid4\nvalidation,female singer,3,12,{track}\n",
    )
    report = ingest.ingest_mirdata(lake, "medley_solos_db", home, index=home / "own.json", workers=1)
    row = rows_of(lake)[track]
    assert (row["split"], row["instrument"], row["song_id"], report.notes) == ("valid", "female singer", 12, ())


def test_unknown_sets_versions_and_missing_indexes_are_named_with_a_remedy(lake, tmp_path, gtzan):
    home, file = gtzan
    with pytest.raises(InputError, match=r"mirdata has no data set 'gtzan'. It has .*gtzan_genre"):
        ingest.ingest_mirdata(lake, "gtzan", home)
    with pytest.raises(InputError, match="mirdata gtzan_genre: has no version '7'"):
        ingest.ingest_mirdata(lake, "gtzan_genre", home, version="7")
    with pytest.raises(InputError, match="is not a folder"):
        ingest.ingest_mirdata(lake, "gtzan_genre", tmp_path / "absent")
    other = file.rename(tmp_path / "kept.json")
    with pytest.raises(InputError, match=r"index gtzan_genre_index_1\.0\.json is missing.*download\(\['index'\]\).*--index"):
        ingest.ingest_mirdata(lake, "gtzan_genre", home)
    broken = {"{": "is not an index of mirdata", "[1]": "is not an index", '{"tracks": {}}': "lists no tracks"}
    for content, message in broken.items():
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            ingest.ingest_mirdata(lake, "gtzan_genre", home)
    report = ingest.ingest_mirdata(lake, "gtzan_genre", home, index=other, workers=1)
    assert report.added.new == 2


def test_an_index_cannot_name_files_outside_the_folder(lake, tmp_path, gtzan):
    home, _ = gtzan
    put(tmp_path, "secret.wav", 3)
    (home / "index.json").write_text(json.dumps({"tracks": {"rock.00000": {"audio": ["../secret.wav", None]}}}))
    with pytest.raises(InputError, match="outside the folder"):
        ingest.ingest_mirdata(lake, "gtzan_genre", home, index=home / "index.json")


def test_a_folder_without_the_sets_audio_is_refused(lake, tmp_path, gtzan):
    _, file = gtzan
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no audio of gtzan_genre: the first of 3 is gtzan_genre/genres/country"):
        ingest.ingest_mirdata(lake, "gtzan_genre", tmp_path / "empty", index=file)


def test_the_command_ingests_a_set(tmp_path, gtzan):
    home, file = gtzan
    done = CliRunner().invoke(app, [
        "ingest", "mirdata", "gtzan_genre", str(home), "--lake", str(tmp_path / "lake"), "--index", str(file), "--no-validate",
        "--workers", "1",
    ])
    assert done.exit_code == 0, done.output


def test_every_loader_can_be_asked_for_its_labels():
    """The attributes that may be labels are found for each class of track, in every loader that can be imported."""
    import mirdata

    from tonelake.ingest.datasets.mirdata import computed_attributes, load_dataset

    found, unusable = {}, []
    for name in mirdata.list_datasets():
        try:
            load_dataset(name, Path("/nowhere"), "default", None)
        except InputError as error:
            if "is missing. Download it" not in str(error):
                unusable.append(name)
                continue
        module = __import__(f"mirdata.datasets.{name}", fromlist=["Track"])
        found[name] = set(computed_attributes(module.Track)) if module.Track is not None else set()
    assert len(found) + len(unusable) == len(mirdata.list_datasets()) and len(found) >= 55
    assert "tempo" in found["gtzan_genre"] and "beats" not in found["gtzan_genre"]
    assert "key" in found["giantsteps_key"] and "instrument" in found["medley_solos_db"]
    assert not any(name.startswith("audio") for names in found.values() for name in names)
