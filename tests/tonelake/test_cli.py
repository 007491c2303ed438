"""The command line as people and programs use it: output on each stream, and exit codes."""

from __future__ import annotations

import contextlib
import csv
import inspect
import io
import json
import logging
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from commands import get_command, rows, run
from fakes import fill

import tonelake
from tonelake.cli import app
from tonelake.render import cell
from tonelake.store import Lake

HOME = Path(__file__).resolve().parents[2]


def start(*args, lake) -> subprocess.CompletedProcess:
    """Run the console script in a process of its own, its output in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "tonelake", *map(str, args)], capture_output=True, text=True, cwd=HOME, timeout=240,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TONELAKE_LAKE": str(lake)},
    )


@pytest.fixture(scope="module")
def tagged(tmp_path_factory, music):
    """A lake of the music by three artists, ingested and embedded by the commands."""
    lake = tmp_path_factory.mktemp("cli") / "lake"
    labels = tmp_path_factory.mktemp("labels") / "mood.csv"
    labels.write_text("stem,mood\n" + "".join(f"song{i},{'calm' if i < 3 else 'wild'}\n" for i in range(6)))
    done = run("ingest", "folder", music, "--seconds", "3", "--labels", labels, lake=lake)
    assert done.returncode == 0, done.stderr
    assert "mood.csv: 6 of 6 rows matched by stem" in done.stderr
    assert "6 recordings: 18 clips new, 0 known" in done.stderr
    done = run("embed", "--encoder", "spectral", lake=lake)
    assert done.returncode == 0, done.stderr
    assert "space spectral: 18 clips embedded, 0 known" in done.stderr
    return lake


@pytest.mark.slow
def test_from_a_folder_to_similar_clips_groups_and_layers(tagged, music):
    clip = rows(start("clips", lake=tagged))[0]
    assert (clip["artist"], clip["mood"]) == ("Ada", "calm")
    hits = rows(run("similar", clip["clip_id"], "-k", 4, "--layer", "chroma", "--not-same", "track", lake=tagged))
    assert [h["rank"] for h in hits] == [1, 2, 3, 4]
    assert all(h["track"] != clip["track"] for h in hits)
    assert [h["score"] for h in hits] == sorted((h["score"] for h in hits), reverse=True)
    by_file = rows(run("similar", music / "Ada" / "song0.wav", "-k", 2, "--where", "mood = 'wild'", lake=tagged))
    assert len(by_file) == 2
    artists = rows(run("groups", "artist", "--min-tracks", 2, lake=tagged))
    assert [(g["artist"], g["clips"], g["tracks"]) for g in artists] == [("Ada", 6, 2), ("Béla", 6, 2), ("Cleo", 6, 2)]
    near = rows(run("groups", "artist", "ada", "--min-tracks", 2, lake=tagged))
    assert {g["artist"] for g in near} == {"Béla", "Cleo"}
    report = run("layers", "artist", lake=tagged)
    assert [r["name"] for r in rows(report)] == ["mfcc", "mel", "chroma", "tonnetz", "contrast", "shape", "rhythm", "all"]
    assert all(0 <= r["map_low"] <= r["map"] <= r["map_high"] <= 1 for r in rows(report))
    assert "separates artist best (18 queries, 3 groups, 18 clips; pairs of one track are excluded)" in report.stderr


def test_a_second_run_of_a_command_changes_nothing(tagged, music):
    assert "18 known" in run("ingest", "folder", music, "--seconds", "3", lake=tagged).stderr
    assert "space spectral: 0 clips embedded, 18 known" in run("embed", "--encoder", "spectral", lake=tagged).stderr


@pytest.mark.slow
def test_a_lake_on_s3_gives_the_answers_of_a_local_lake(s3, music, tagged):
    """Ingest, embed and search on s3://."""
    lake = f"{s3}/lake"
    assert "18 clips new" in run("ingest", "folder", music, "--seconds", "3", lake=lake).stderr
    assert "18 clips embedded" in run("embed", "--encoder", "spectral", lake=lake).stderr
    assert "18 known" in run("embed", "--encoder", "spectral", lake=lake).stderr
    clip = rows(run("clips", "-k", 1, lake=lake))[0]["clip_id"]
    there = rows(run("similar", clip, "-k", 5, lake=lake))
    here = rows(run("similar", clip, "-k", 5, lake=tagged))
    assert [(h["clip_id"], h["score"]) for h in there] == [(h["clip_id"], h["score"]) for h in here]
    assert json.loads(run("status", lake=lake).stdout)["clips"] == 18


def test_windows_that_overlap_and_stored_frames(tagged, tmp_path):
    lake = Lake(tagged)
    done = run("embed", "--encoder", "spectral", "--window", "2", "--hop", "1", "--frames", "chroma,0", lake=tagged)
    assert "space spectral-w2-h1: 18 clips embedded, 0 known, frames of 18 stored" in done.stderr
    clip = lake.clips.ids()[0]
    states = lake.frames("spectral-w2-h1").read(clip, "chroma")
    assert states.states.shape == (len(states.frame_s), 12)
    assert 2.9 < states.frame_s[-1] <= 3.0
    assert lake.frames("spectral-w2-h1").layers() == [0, 2]
    again = run("embed", "--space", "spectral-w2-h1", lake=tagged)                       # keeps the space's window and hop
    assert "0 clips embedded, 18 known" in again.stderr
    wrong = run("embed", "--space", "spectral-w2-h1", "--hop", "0.5", lake=tagged)
    assert wrong.returncode == 1 and "hop_s 1.0 (wanted 0.5)" in wrong.stderr
    for options, problem in (
        (["--hop", "9", "--window", "5"], "9 s is out of range for windows of 5 s"),
        (["--hop", "0.1"], "'hop_s': 0.1 s is out of range"),
        (["--frames", "99"], "has no layer '99'"), (["--engine", "spark"], "Choose local or ray"),
    ):
        done = run("embed", "--encoder", "spectral", *options, lake=tagged)
        assert done.returncode == 2 and problem in done.stderr
    shutil.rmtree(Path(tagged) / "emb_spectral-w2-h1.lance")
    shutil.rmtree(Path(tagged) / "frames_spectral-w2-h1.lance")
    (Path(tagged) / "spaces" / "spectral-w2-h1.json").unlink()


def test_status_spaces_and_failures(tagged):
    status = json.loads(run("status", lake=tagged).stdout)
    assert (status["clips"], status["tracks"], status["failures"], status["labels"]) == (18, 6, 0, ["artists", "mood"])
    assert status["spaces"][0]["embedded"] == 18
    assert rows(run("spaces", lake=tagged))[0]["name"] == "spectral"
    assert rows(run("failures", lake=tagged)) == []


def test_csv_and_json_are_for_programs(tagged):
    table = list(csv.DictReader(io.StringIO(run("groups", "artist", "--min-tracks", 2, "--csv", lake=tagged).stdout)))
    assert [row["artist"] for row in table] == ["Ada", "Béla", "Cleo"]
    as_json = run("groups", "artist", "--min-tracks", 2, "--json", lake=tagged)
    assert rows(as_json) == rows(run("groups", "artist", "--min-tracks", 2, lake=tagged))


def test_a_matrix_and_a_picture_are_written(tagged, tmp_path):
    done = run("groups", "artist", "--min-tracks", 2, "--matrix", tmp_path / "m.csv", lake=tagged)
    assert "3 × 3 similarities" in done.stderr
    matrix = pl.read_csv(tmp_path / "m.csv")
    assert matrix.columns == ["artist", "Ada", "Béla", "Cleo"]
    assert [matrix[name][i] for i, name in enumerate(matrix.columns[1:])] == pytest.approx([1, 1, 1], abs=1e-5)
    assert run("layers", "artist", "--picture", tmp_path / "p.png", lake=tagged).returncode == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert run("layers", "artist", "--picture", tmp_path / "p.nonsense", lake=tagged).returncode == 2
    assert run("groups", "artist", "--min-tracks", 2, "--matrix", tmp_path / "no" / "m.csv", lake=tagged).returncode == 2


def test_a_person_at_a_terminal_gets_a_table(tagged, monkeypatch):
    """On a pseudo-terminal: columns with a header, ids shortened, nothing of JSON."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")
    terminal, end = pty.openpty()
    with os.fdopen(end, "w") as out:
        assert run("groups", "artist", "--min-tracks", 2, lake=tagged, out=out).returncode == 0
    shown = os.read(terminal, 65_536).decode()
    os.close(terminal)
    assert shown.splitlines()[0].split() [:4] == ["artist", "clips", "tracks", "cohesion"]
    assert "{" not in shown


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["similar", "nothing-like-it"], 2, "neither a file nor a clip id"),
        (["similar", "0000", "--layer", "99"], 2, "has no layer '99'. Choose one of 0 (mfcc)"),
        (["clips", "--where", "colour = 'red'"], 2, "No field named colour"),
        (["clips", "--where", "1; DROP TABLE clips"], 2, "not a single SQL expression"),
        (["embed", "--encoder", "spectral", "--space", "a/b"], 2, "'a/b': not a valid name"),
        (["embed", "--encoder", "mert96m"], 2, "'mert96m': neither a checkpoint folder nor a known name"),
        (["ingest", "folder", ".", "--multi", "tags"], 2, "Name the file with --labels"),
        (["groups", "artist", "Adda", "--min-tracks", "2"], 2, "Did you mean 'Ada'"),
        (["layers", "colour"], 2, "clips: no column 'colour'"),
        (["ingest", "folder", "/no/such/folder"], 2, "is not a folder"),
        (["ingest", "manifest", "/no/such.csv"], 2, "cannot be read"),
        (["ingest", "folder", ".", "--seconds", "0"], 2, "Choose 1 to 3600 seconds"),
        (["status", "--lake", "/dev/null"], 1, "is a file, but a lake is a folder"),
        (["status", "--lake", "/no/such/lake"], 1, "is not a lake"),
        (["similar"], 2, "Give a song, a clip, a file or --text"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_errors_are_one_message_with_a_remedy_and_an_exit_code(tagged, args, code, words):
    is_an_error(run(*args, lake=tagged), code, words)


def test_weights_that_cannot_be_downloaded_are_an_error_with_the_command(tagged, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    is_an_error(run("embed", "--encoder", "mert-95m", lake=tagged), 1, "hf download m-a-p/MERT-v1-95M")


def is_an_error(done, code, words):
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_batch_with_a_bad_file_exits_with_0_unless_strict(tmp_path, music):
    from sounds import melody, write

    write(tmp_path / "m" / "good.wav", melody(3))
    (tmp_path / "m" / "bad\x1b[31m.mp3").write_bytes(b"no music")
    done = run("ingest", "folder", tmp_path / "m", lake=tmp_path / "lake")
    assert (done.returncode, "1 recordings failed" in done.stderr) == (0, True)
    assert run("ingest", "folder", tmp_path / "m", "--strict", lake=tmp_path / "lake").returncode == 1
    failure = rows(run("failures", lake=tmp_path / "lake"))[0]
    assert failure["source"].endswith("bad\x1b[31m.mp3")         # exact for programs, escaped for terminals
    assert "is not audio" in failure["error"]
    assert cell("source", failure["source"]).endswith("bad\\x1b[31m.mp3")


@pytest.mark.slow
def test_ctrl_c_ends_a_long_command_with_one_line_and_keeps_finished_work(tmp_path):
    """At a terminal, once the progress bar shows that some of the 410 pieces are parsed."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tonelake", "ingest", "chorales", "--lake", str(tmp_path / "lake")],
        cwd=HOME, stderr=end, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"}, start_new_session=True,
    )
    os.close(end)
    shown = b""
    while not re.search(rb"\D([5-9]|[1-9]\d+)/410", shown):
        shown += os.read(terminal, 4096)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):   # the end of a pseudo-terminal
        while more := os.read(terminal, 4096):
            shown += more
    os.close(terminal)
    assert process.wait(timeout=60) == 130
    assert b"interrupted: finished work is stored. Run the same command again to resume" in shown
    assert b"Traceback" not in shown
    assert 0 < Lake(tmp_path / "lake").clips.count() < 2_801


def test_python_and_the_command_line_give_the_same_results(tagged):
    lake = tonelake.open(tagged, create=False, progress=False)
    clip = lake.clips.read().row(0, named=True)
    frame = lake.similar(clip["clip_id"], k=3, layer="mel")
    same = rows(run("similar", clip["clip_id"], "-k", 3, "--layer", "mel", lake=tagged))
    assert frame["clip_id"].to_list() == [hit["clip_id"] for hit in same]
    assert lake.status().next_step().startswith("tonelake similar")
    assert len(lake.audio(clip["clip_id"])) == 72_000
    assert lake.layers("artist").table.height == 8
    assert repr(lake) == f"Lake('{tagged}')"


@pytest.mark.slow
def test_a_script_without_a_main_guard_can_use_the_workers(tmp_path, music):
    """Multiprocessing would import the script again in every worker, and fail."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import tonelake\nlake = tonelake.open({str(tmp_path / 'lake')!r})\n"
        f"print(lake.ingest_folder({str(music)!r}, workers=2).added.new)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(HOME)}, check=False
    )
    assert done.stdout == "6\n", done.stderr


def test_the_version_is_shown():
    assert start("--version", lake="lake").stdout == f"tonelake {tonelake.__version__}\n"


def test_next_steps_lead_from_an_empty_lake_to_an_answer(tmp_path):
    lake = tonelake.open(tmp_path / "lake", progress=False)
    assert lake.status().next_step() == "tonelake ingest folder PATH"
    fill(Lake(tmp_path / "lake"), 2, 2, seed=0)
    assert lake.status().next_step().startswith("tonelake similar")
    from fakes import clip_rows

    lake.clips.add(clip_rows(3, 2))
    assert lake.status().next_step() == "tonelake embed --space fake"


def commands(group: Any, prefix: str = "tonelake") -> dict[str, Any]:
    """Every command, by its full name."""
    found = {}
    for name, command in group.commands.items():
        found |= commands(command, f"{prefix} {name}") if hasattr(command, "commands") else {f"{prefix} {name}": command}
    return found


TOP = get_command(app)
COMMANDS = commands(TOP)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_an_example_and_a_panel(name):
    command = COMMANDS[name]
    assert f"Example: {name}" in command.help
    assert not command.help.startswith(("Of ", "What ", "The same"))
    assert all(param.help for param in command.params), "an option without a help text"
    assert isinstance(TOP.commands[name.split()[1]].rich_help_panel, str)


def test_options_take_the_defaults_of_the_library():
    from tonelake import index

    for name, function, options in (
        ("tonelake tokens similar", index.similar_by_tokens, ("by", "k", "n")),
        ("tonelake tokens typical", index.typical_tokens, ("k",)), ("tonelake oracle repeats", index.repeats, ("k", "least")),
    ):
        defaults = {param.name: param.default for param in COMMANDS[name].params}
        expected = inspect.signature(function).parameters
        assert {option: defaults[option] for option in options} == {option: expected[option].default for option in options}


@pytest.mark.parametrize("command", ["probe", "finetune"])
def test_options_of_settings_have_their_types_choices_and_defaults(command):
    from tonelake.finetune import FinetuneConfig
    from tonelake.probes import ProbeConfig
    from tonelake.store import setting_fields

    params = {param.name: param for param in COMMANDS[f"tonelake {command}"].params}
    for field in setting_fields(ProbeConfig if command == "probe" else FinetuneConfig):
        param = params[field.name]
        if field.choices and field.name not in ("space", "where"):
            assert all(choice in str(param.type_descriptor.annotation) for choice in field.choices)
        if field.name not in ("column", "columns", "space", "where", "protocol"):
            assert param.default is None         # a setting that is not given can come from a file
            assert field.kind is bool or field.default in (None, "") or "default" in param.help


def test_a_setting_that_is_not_a_choice_or_a_list_of_numbers_is_an_error(tagged):
    is_an_error(run("probe", "artist", "--head", "tree", lake=tagged), 2, "--head")
    is_an_error(run("probe", "artist", "--rates", "fast", lake=tagged), 2, "--rates")
    is_an_error(run("probe", "artist", "--epochs", 0, lake=tagged), 2, "'epochs'")


def test_steps_and_warnings_of_the_library_are_lines_on_standard_error(tagged, capsys):
    done = run("map", "--layer", "chroma", "--method", "pca", "--again", lake=tagged)
    assert done.returncode == 0 and "laying out 18 clips\n" in done.stderr and "laying out" not in done.stdout
    logging.getLogger("tonelake.ingest").warning("an odd file")
    assert capsys.readouterr().err == "warning: an odd file\n"


def test_colours_follow_no_color(tagged, monkeypatch, capsys):
    from tonelake.render import show_table

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    show_table(pl.DataFrame({"artist": []}), empty="nothing")
    assert "\x1b[3" not in capsys.readouterr().out


INDEXES = pl.DataFrame([
    {
        "space": "mert-v1-330m", "layer": "24", "stat": "mean", "metric": "cosine", "kind": "ivf-pq",
        "rows": 10_000_000, "recall": 0.951, "behind": 12_000, "gone": 0, "state": "behind", "mb": 17_000.0,
    },
])


def test_every_result_fits_a_terminal_of_eighty_columns(tagged, monkeypatch, capsys):
    from tonelake import views
    from tonelake.render import show_table

    monkeypatch.setenv("COLUMNS", "80")
    lake = tonelake.open(tagged, create=False, progress=False)
    clip = lake.clips.read()["clip_id"][0]
    results = {
        "hits": lake.similar(clip, k=2), "layers": lake.layers("artist").table, "spaces": lake.list_spaces(),
        "clips": lake.clips.read(), "by_layer": lake.similar(clip, k=7, explain=True), "indexes": INDEXES,
    }
    for name, frame in results.items():
        show_table(getattr(views, name)(frame))
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1 + len(getattr(views, name)(frame)), name          # no row is wrapped
        assert max(map(len, lines)) <= 80
    distances = views.hits(lake.similar(clip, k=2, metric="l2"))
    assert "distance" in distances.columns
    starred = views.layers(results["layers"])["layer"].to_list()
    assert [name for name in starred if name.endswith(" *")] == [lake.layers("artist").recommended + " *"]


def test_times_are_shown_as_minutes_and_seconds():
    from tonelake import views

    shown = pl.DataFrame({"s": [0.0, 75.5, 3600.0]}).select(views.clock(pl.col("s")))["s"].to_list()
    assert shown == ["0:00.0", "1:15.5", "60:00.0"]
