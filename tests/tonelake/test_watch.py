"""Watching folders: real events in temporary folders, in this process; syncs and embeddings are real, on tiny files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from fakes import clip_rows, fill
from library import InProcess, embed_missing
from sounds import melody, write

from tonelake.embed import hybrid_space
from tonelake.ingest import IngestReport, ingest_folder
from tonelake.store import InputError, Lake, LakeError, SpaceNotFound
from tonelake.watch import Choice, Timing, Watch
from tonelake.watch.changes import Changes
from tonelake.watch.embedding import clips_without, commands
from tonelake.writers import writing

QUICK = Timing(quiet_s=0.06, every_s=0.1, most_wait_s=0.5, retry_s=0.15, tick_s=0.02)
RATE = 8_000
CHANGES = {one.name for one in fields(Changes)}


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """Decode in this process: starting decoders takes longer than the files."""
    monkeypatch.setattr("tonelake.ingest.recordings.DecoderPool", InProcess)


def song(path, seed: int, seconds: float = 1.2):
    """Write a song, which appears whole."""
    hidden = path.with_name(f".{path.name}")
    write(hidden, melody(seconds, seed=seed, rate=RATE), RATE)
    return hidden.rename(path)


@pytest.fixture
def music(tmp_path):
    for number in range(3):
        song(tmp_path / "Jazz" / f"{number}.wav", number)
    return tmp_path / "Jazz"


def embed_here(lake, arguments, stop) -> str:
    """Embed with the fake encoder, in this process."""
    embed_missing(lake)
    return ""


class Running:
    """A watch in a thread, and the lines that it said, without their time."""

    def __init__(self, lake: Lake, folders=(), **options) -> None:
        self.lines: list[str] = []
        self.problem: BaseException | None = None
        self._said = threading.Condition()
        settings = {"timing": QUICK, "others_s": -1.0, "run_embed": embed_here} | options
        self.watch = Watch(lake, folders, say=self._say, **settings)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _say(self, line: str) -> None:
        with self._said:
            self.lines.append(line[6:])
            self._said.notify_all()

    def _run(self) -> None:
        try:
            self.watch.run()
        except BaseException as error:
            self.problem = error
        with self._said:
            self._said.notify_all()

    def until(self, text: str, seconds: float = 20.0) -> str:
        """The first line that contains a text; it and those before it are not looked at again."""
        deadline = time.monotonic() + seconds
        with self._said:
            while True:
                for number, line in enumerate(self.lines):
                    if text in line:
                        del self.lines[: number + 1]
                        return line
                left = deadline - time.monotonic()
                assert left > 0 and self.problem is None, f"no {text!r} in {self.lines}, {self.problem}"
                self._said.wait(left)


    def counts(self, **expected: int) -> None:
        """Wait until the lines add up to these counts: a slow machine makes several batches of the changes."""
        found: Counter[str] = Counter()
        while found != Counter(expected):
            for count, word in re.findall(r"(\d+) (\w+)", self.until("")):
                found[word] += int(count) * (word in CHANGES | {"clips"})
            assert found <= Counter(expected)


@contextlib.contextmanager
def watched(lake: Lake, folders=(), **options) -> Iterator[Running]:
    running = Running(lake, folders, **options)
    running.thread.start()
    try:
        yield running
    finally:
        running.watch.end()
        running.thread.join(20)
        assert not running.thread.is_alive()


def when(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def synced(running: Running) -> None:
    """Wait for the first sync, which says nothing if nothing changed, and leave out what was said before."""
    when(lambda: not running.watch._is_starting and all(root.synced for root in running.watch._roots.values()))
    running.lines.clear()


def missing(lake: Lake) -> int:
    return lake.paths.count("missing_since IS NOT NULL")


def test_it_starts_with_a_sync_and_follows_changes_batch_by_batch(lake, music):
    ingest_folder(lake, music, seconds=1.0)
    song(music / "3.wav", 3)             # while nothing watched
    with watched(lake) as running:
        assert running.until("watching").startswith("watching Jazz: ")
        assert running.until("embedded").startswith("Jazz: 1 added; 4 clips embedded in ")
        (music / "0.wav").rename(music / "renamed.wav")
        song(music / "sub" / "4.wav", 4)
        song(music / "1.wav", 11)
        (music / "2.wav").unlink()
        running.counts(added=1, renamed=1, replaced=1, missing=1, clips=2)
        shutil.move(music / "sub", music / "other")
        assert running.until("Jazz") == "Jazz: 1 renamed"
    assert lake.clips.read(["source"])["source"].str.ends_with("other/4.wav").any()
    assert lake.clips.read()["duration_s"].max() <= 1.0, "cut as the first ingest was"
    assert not lake.vectors("fake").missing(["clip_id", "state"])["state"].is_null().any()


def test_other_files_start_no_batch_and_a_damaged_one_is_reported_once(lake, music):
    ingest_folder(lake, music, seconds=None)
    with watched(lake, embed=False) as running:
        synced(running)
        (music / "cover.jpg").write_bytes(b"x")
        (music / "4.wav.part").write_bytes(b"x")
        song(music / ".hidden" / "9.wav", 9)
        (music / "bad.mp3").write_bytes(b"no audio" * 100)
        assert running.until("").startswith("failed: bad.mp3: ")
        (music / "4.wav.part").unlink()
        song(music / "5.wav", 5)
        assert running.until("Jazz") == "Jazz: 1 added"
        song(music / "6.wav", 6)
        assert running.until("Jazz") == "Jazz: 1 added"
        assert running.lines == []
    assert lake.failures.count() == 1 and lake.clips.count() == 5


@pytest.mark.slow
def test_a_file_that_is_being_copied_waits_while_finished_ones_are_read(lake, music, tmp_path):
    ingest_folder(lake, music, seconds=None)
    whole = song(tmp_path / "long.wav", 7, 4.0).read_bytes()
    with watched(lake) as running:
        running.until("embedded")
        song(music / "4.wav", 4)
        with (music / "long.wav").open("wb") as file:
            for byte in whole[:400]:
                file.write(bytes([byte]))
                file.flush()
                time.sleep(0.01)
                if any("1 added" in line for line in running.lines):
                    break
            assert running.until("Jazz").startswith("Jazz: 1 added;"), "the finished file, before the copy ends"
            assert not any("failed" in line for line in running.lines)
            file.write(whole[file.tell():])
        assert running.until("Jazz").startswith("Jazz: 1 added;")
    assert not lake.failures.count() and lake.paths.count() == 5


@pytest.mark.parametrize(("how", "poll"), [
    ("renamed", False), ("unmounted", True), pytest.param("renamed", True, marks=pytest.mark.slow),
    pytest.param("unmounted", False, marks=pytest.mark.slow),
])
def test_a_drive_that_goes_away_leaves_everything_as_it_is(lake, music, how, poll):
    ingest_folder(lake, music, seconds=None)
    away = music.with_name("away")
    with watched(lake, poll=poll, embed=False) as running:
        synced(running)
        music.rename(away)
        if how == "unmounted":
            music.mkdir()                # as the mount point of a drive
        assert "is not reachable" in running.until("Jazz: is not")
        time.sleep(4 * QUICK.every_s)    # further looks say nothing and mark nothing
        assert not running.lines and missing(lake) == 0
        if how == "unmounted":
            music.rmdir()
        song(away / "9.wav", 9)
        away.rename(music)
        running.until("Jazz: is back")
        running.until("Jazz: 1 added")
    assert missing(lake) == 0


@pytest.mark.slow
def test_many_lost_files_wait_for_a_permission(lake, tmp_path):
    folder = tmp_path / "Rock"
    for number in range(12):
        song(folder / f"{number % 2}" / f"{number}.wav", number)
    ingest_folder(lake, folder, seconds=None)
    with watched(lake, embed=False) as running:
        synced(running)
        shutil.move(folder / "0", folder / "moved")          # a rename is no loss
        running.counts(renamed=6)
        before = missing(lake)
        shutil.copytree(folder / "1", tmp_path / "part" / "1", ignore=lambda *_: ["1.wav", "3.wav", "5.wav", "7.wav"])
        folder.rename(tmp_path / "kept")
        (tmp_path / "part").rename(folder)
        running.until("10 of 12 files are gone")
        time.sleep(4 * QUICK.every_s)
        assert missing(lake) == before and not running.lines
        (folder / "1").rename(tmp_path / "replaced")
        (tmp_path / "kept" / "1").rename(folder / "1")
        running.until("Rock: is back")   # as soon as fewer than ten are gone
        running.counts(missing=6)
    assert missing(lake) == before + 6
    song(folder / "1" / "new.wav", 20)
    for number in (1, 3, 5):
        (folder / "1" / f"{number}.wav").unlink()
    assert Watch(lake, allow_missing=True, timing=QUICK, others_s=-1.0, embed=False, say=lambda _: None).run(once=True)
    assert missing(lake) == before + 9


def test_a_second_watch_is_refused_and_other_writers_are_waited_for(lake, music):
    ingest_folder(lake, music, seconds=None)
    with contextlib.ExitStack() as busy:
        busy.enter_context(writing(lake, -1.0))
        with watched(lake) as running:
            running.until("waiting until another process has finished")
            with pytest.raises(InputError, match="another `tonelake watch` of it is running"):
                Watch(Lake(lake.uri), timing=QUICK, say=lambda _: None).run()
            time.sleep(4 * QUICK.retry_s)
            assert not running.lines, "said once"
            busy.close()
            running.until("3 clips embedded")


@pytest.mark.slow
def test_what_another_process_wrote_just_now_is_waited_for(lake, music):
    ingest_folder(lake, music, seconds=None)
    with watched(lake, others_s=0.8) as running:
        running.until("waiting until another process has finished")
        assert running.until("").startswith("3 clips embedded"), "said once"


def test_only_named_folders_and_a_folder_that_was_never_ingested(lake, music, tmp_path):
    ingest_folder(lake, music, seconds=1.0)
    song(tmp_path / "New" / "a.wav", 20)
    with watched(lake, [tmp_path / "New"]) as running:
        running.until("watching New")
        running.until("New: 1 added")
    assert {ingest.root for ingest in lake.ingests.all()} == {str(music), str(tmp_path / "New")}
    (music / "sub").mkdir()
    with pytest.raises(InputError, match="is inside"):
        Watch(lake, [music / "sub"])
    with pytest.raises(InputError, match="is not a folder"):
        Watch(lake, [tmp_path / "absent"])


def test_a_lake_without_records_says_how_to_get_one(lake, music):
    with pytest.raises(InputError, match="no folder was ingested"):
        Watch(lake)
    ingest_folder(lake, music, seconds=1.0)
    lake.ingests.remove("folder", str(music))
    with pytest.raises(InputError, match=f"earlier release did it.*tonelake watch {music}"):
        Watch(lake)
    watch = Watch(lake, [music])
    assert watch._ingests[0].options["seconds"] == 1.0, "cut as before"
    with pytest.raises(InputError, match="Give one of them"):
        Watch(lake, [music], choice=Choice(spaces=("fake",), encoder="spectral"))


def test_files_are_looked_at_where_the_system_cannot_report_more_changes(lake, music, monkeypatch):
    def full(*_, **__):
        raise OSError(f'OS file watch limit reached. about ["{music}"] (Error {{ kind: MaxFilesWatch }})')

    monkeypatch.setattr("watchfiles.watch", full)
    ingest_folder(lake, music, seconds=None)
    with watched(lake, embed=False) as running:
        assert "(OS file watch limit reached), so it is looked at every" in running.until("Jazz: changes are not reported")
        song(music / "5.wav", 5)
        running.until("Jazz: 1 added")


@pytest.mark.slow
def test_folders_that_are_ingested_meanwhile_are_watched_too(lake, music, tmp_path, monkeypatch):
    monkeypatch.setattr("tonelake.watch.loop.RELOAD_S", 0.1)
    ingest_folder(lake, music, seconds=None)
    song(tmp_path / "New" / "a.wav", 20)
    with watched(lake) as running:
        running.until("embedded")
        ingest_folder(Lake(lake.uri), tmp_path / "New", seconds=None)
        running.until("watching New")
        song(tmp_path / "New" / "b.wav", 21)
        running.until("New: 1 added")


def test_a_drive_that_does_not_answer_holds_up_nothing_else(lake, music, tmp_path, monkeypatch):
    from tonelake.watch import places

    monkeypatch.setattr("tonelake.watch.loop.RELOAD_S", 0.1)
    song(tmp_path / "NAS" / "a.wav", 20)
    for folder in (music, tmp_path / "NAS"):
        ingest_folder(lake, folder, seconds=None)
    answers, hangs = threading.Event(), threading.Event()

    def slow(path, *, folder):
        if path.name == "NAS" and hangs.is_set():
            answers.wait(20)
        return places.reach(path, folder=folder)

    monkeypatch.setattr("tonelake.watch.root.reach", slow)
    with watched(lake, embed=False) as running:
        synced(running)
        hangs.set()
        running.until("NAS: is not reachable (its drive does not answer)")
        song(music / "5.wav", 5)
        running.until("Jazz: 1 added")
        song(tmp_path / "NAS" / "b.wav", 21)
        answers.set()
        running.until("NAS: is back")
        running.until("NAS: 1 added")


def test_a_music_server_is_asked_again_and_again(lake, monkeypatch):
    asked: list[str] = []

    def repeat(lake, ingest, **_) -> IngestReport:
        asked.append(ingest.root)
        if len(asked) == 2:
            raise InputError("https://home.example: does not answer. Start the server")
        return IngestReport()

    monkeypatch.setattr("tonelake.watch.loop.repeat_ingest", repeat)
    monkeypatch.setattr("tonelake.watch.root.SERVER_S", 0.1)
    lake.ingests.record("subsonic", "https://home.example", {})
    with watched(lake, embed=False) as running:
        running.until("watching home.example: https://home.example, looked at every")
        running.until("home.example: https://home.example: does not answer. Start the server")
        when(lambda: len(asked) >= 4)
        assert running.lines == [] and not running.watch._said


@pytest.mark.slow
def test_a_lake_that_goes_away_is_waited_for_and_another_one_ends_the_watch(lake, music, tmp_path):
    ingest_folder(lake, music, seconds=None)
    with watched(lake, embed=False) as running:
        synced(running)
        (tmp_path / "lake").rename(tmp_path / "away")
        song(music / "5.wav", 5)
        running.until("the lake: is not reachable")
        assert not (tmp_path / "lake").exists()
        (tmp_path / "away").rename(tmp_path / "lake")
        running.until("Jazz: 1 added")
        (tmp_path / "lake").rename(tmp_path / "away")
        ingest_folder(Lake(tmp_path / "lake"), music, seconds=None)
        song(music / "6.wav", 6)
        running.until("was replaced by another one")
        running.thread.join(20)
        assert isinstance(running.problem, LakeError)


@pytest.mark.slow
def test_labels_and_manifests_are_followed(lake, music, tmp_path):
    from tonelake.ingest import ingest_manifest

    (tmp_path / "labels.csv").write_text("stem,kind\n0,low\n1,high\n2,low\n")
    (tmp_path / "clips.csv").write_text("path,start,seconds\nJazz/0.wav,0,1\n")
    ingest_folder(lake, music, seconds=None, labels=tmp_path / "labels.csv")
    ingest_manifest(lake, tmp_path / "clips.csv")
    with watched(lake) as running:
        running.until("embedded")
        (tmp_path / "labels.csv").write_text("stem,kind\n0,high\n1,high\n2,low\n")
        assert "Jazz: 1 changed" in running.until("Jazz")
        (tmp_path / "clips.csv").write_text("path,start,seconds\nJazz/0.wav,0,1\nJazz/1.wav,0,1\n")
        when(lambda: lake.clips.count() == 5)
        (tmp_path / "clips.csv").write_text("nothing\n")
        running.until("clips.csv: ")
        song(music / "7.wav", 7)
        running.until("Jazz: 1 added")


def test_an_embedding_that_fails_is_said_once_and_tried_again(lake, music):
    tries = []

    def failing(lake, arguments, stop) -> str:
        tries.append(list(arguments))
        return "tonelake embed: no weights" if len(tries) < 3 else embed_here(lake, arguments, stop)

    ingest_folder(lake, music, seconds=None)
    timing = replace(QUICK, retry_s=0.02)
    with watched(lake, run_embed=failing, timing=timing) as running:
        running.until("no weights")
        running.until("3 clips embedded")
        assert not any("weights" in line for line in running.lines)
    assert tries == [["embed"]] * 3


def test_one_round_ends_with_the_state_that_a_sync_gives(lake, music):
    ingest_folder(lake, music, seconds=None)
    song(music / "4.wav", 4)
    lines: list[str] = []
    watch = Watch(lake, timing=QUICK, say=lines.append, others_s=-1.0, run_embed=embed_here)
    assert watch.run(once=True) and "Jazz: 1 added; 4 clips embedded" in lines[-1]
    os.rename(music, music.with_name("away"))  # noqa: PTH104
    assert not Watch(lake, timing=QUICK, say=lines.append, others_s=-1.0, run_embed=embed_here).run(once=True)
    assert "is not reachable" in lines[-1]


def test_spaces_that_lack_clips_are_extended_and_hybrids_last(lake):
    fill(lake, tracks=2, clips_a_track=2, seed=1)
    other = lake.spaces.make(replace(lake.spaces.get("fake"), name="other", revision="2"))
    one = lake.vectors("fake").layer(0).vectors
    lake.vectors(other).add(lake.clips.ids().to_list(), [one, np.zeros((4, 6))], [one, np.zeros((4, 6))], [1] * 4)
    hybrid_space(lake, "fake/0,other/0", name="a-hybrid")
    assert commands(lake, Choice(), clips_without(lake)) == []
    lake.clips.add(clip_rows(3, 2))
    extended = [["embed", "--space", "fake"], ["embed", "--space", "other"]]
    found = commands(lake, Choice(), clips_without(lake))
    assert found[:2] == extended and found[2][:2] == ["embed", "--hybrid"]
    assert commands(lake, Choice(spaces=("other",)), clips_without(lake)) == extended[1:]
    assert commands(lake, Choice(encoder="spectral"), {}) == [["embed", "--encoder", "spectral"]]
    with pytest.raises(SpaceNotFound):
        Choice(spaces=("absent",)).check(lake)
