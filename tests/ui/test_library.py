"""The Library page: the table of songs and its states, copies, failures, and jobs that run real commands."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import polars as pl
import pytest
from app_pages import page, text_of
from app_server import served_lake
from fakes import clip_rows, fill
from sounds import melody, write
from streamlit.testing.v1 import AppTest

import tonelake
from tonelake.ingest import ingest_folder
from tonelake.next_jobs import Job
from tonelake.store import Failure, InputError, Lake
from tonelake.ui import jobs
from tonelake.writers import writing

SUPPORT = Path(__file__).resolve().parents[1] / "support"


@pytest.fixture
def offered(monkeypatch):
    """Serve as on a loopback address, and leave no job behind."""
    monkeypatch.setattr("tonelake.ui.job_panel.jobs_are_offered", lambda: True)
    yield
    for running in jobs._jobs.values():
        running.cancel()
        assert running.wait(60)
    jobs._jobs.clear()


@pytest.fixture
def settled(monkeypatch):
    """Do not take the writes of this test, which are seconds old, for those of another process."""
    monkeypatch.setattr(jobs, "OTHERS_S", -1.0)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A lake with a song that has a copy, one whose file is gone, a replaced one, and a file that is no audio."""
    folder = tmp_path_factory.mktemp("library")
    music = folder / "music"
    for number in range(3):
        write(music / f"song{number}.wav", melody(4, seed=number), tags={"title": f"Song {number}", "artist": "Ada"})
    shutil.copy(music / "song0.wav", music / "copy.wav")
    (music / "empty.mp3").write_bytes(b"")
    lake = Lake(folder / "lake")
    ingest_folder(lake, music, seconds=3.0)
    (music / "song1.wav").unlink()
    write(music / "song2.wav", melody(4, seed=9), tags={"title": "Song 2", "artist": "Ada"})
    ingest_folder(lake, music, seconds=3.0)
    return lake


def table(test: AppTest, number: int = 0) -> pl.DataFrame:
    return pl.DataFrame(test.dataframe[number].value)


# -- the tables


def test_songs_are_listed_with_their_states_and_narrowed_by_them(kept, monkeypatch):
    test = page("library", kept, monkeypatch)
    rows = table(test).select("Title", "State", "Copies").sort("Title", "State").rows()
    assert rows == [
        ("Song 0", "present", 1), ("Song 1", "missing file", None), ("Song 2", "present", None), ("Song 2", "replaced", None),
        ("empty", "failed", None),
    ]
    assert {metric.label: metric.value for metric in test.metric}["Songs"] == "3"
    for show, titles in (("missing", ["Song 1"]), ("copies", ["Song 0"]), ("failed", ["empty"]), ("all", [])):
        shown = table(page("library", kept, monkeypatch, show=show))["Title"].to_list()
        assert shown == titles or (show == "all" and len(shown) == 5)
    assert table(page("library", kept, monkeypatch, find="SONG 2"))["State"].sort().to_list() == ["present", "replaced"]
    assert "No song matches" in text_of(page("library", kept, monkeypatch, find="<b>nothing</b>"))


def test_songs_are_sorted_and_paged(lake, monkeypatch):
    fill(lake, 120, 1, seed=0)
    newest = table(page("library", lake, monkeypatch, sort="Newest first"))
    assert len(newest) == 100
    second = page("library", lake, monkeypatch, page="2")
    assert len(table(second)) == 20 and "Songs 101 to 120 of 120" in text_of(second)
    assert table(second)["Title"][-1] == "Title 99"
    assert len(table(page("library", lake, monkeypatch, page="2", find="TITLE 119"))) == 1


def test_a_file_that_is_gone_is_marked_before_the_next_sync(tmp_path, monkeypatch):
    write(tmp_path / "music/a.wav", melody(4))
    lake = Lake(tmp_path / "lake")
    ingest_folder(lake, tmp_path / "music", seconds=3.0)
    assert table(page("library", lake, monkeypatch))["State"].to_list() == ["present"]
    (tmp_path / "music/a.wav").unlink()
    assert table(page("library", lake, monkeypatch))["State"].to_list() == ["missing file"]


def test_problems_name_reasons_advice_and_what_tries_again(kept, monkeypatch):
    test = page("library", kept, monkeypatch, tab="Problems")
    shown = table(test)
    assert shown["Reason"].to_list() == ["empty.mp3: is empty (0 bytes)"]
    assert shown["Advice"].to_list() == ["Copy the file again from where it came from"]
    commands = [code.value for code in test.code]
    assert sum("--seconds 3" in command for command in commands) == 2               # what to do next, and to try again


def test_copies_name_the_files_of_each_set(kept, monkeypatch):
    shown = table(page("library", kept, monkeypatch, tab="Copies"))
    assert [Path(file).name for file in shown["File"]] == ["copy.wav", "song0.wav"]
    assert shown["Why"].to_list() == ["same audio"] * 2 and shown["Set"].n_unique() == 1


def test_spaces_indexes_and_labels_have_tabs(lake, monkeypatch):
    fill(lake, 30, 40, seed=0)
    tonelake.open(lake.uri, progress=False).build_indexes(kind="hnsw")
    test = page("library", lake, monkeypatch, tab="Spaces")
    assert table(test)["Space"].to_list() == ["fake"] and table(test, 1)["State"].to_list() == ["up to date"]
    assert table(page("library", lake, monkeypatch, tab="Labels"))["column"].to_list() == ["year", "tags"]
    lake.clips.add(clip_rows(32, 2))
    assert "tonelake embed --space fake" in text_of(page("library", lake, monkeypatch))


# -- what to do next


def test_elsewhere_than_on_loopback_commands_are_shown_to_copy(kept, monkeypatch):
    test = page("library", kept, monkeypatch)
    assert not [button for button in test.button if button.label.startswith(("Sync", "Embed"))]
    shown = [code.value for code in test.code]
    assert shown[0] == f"tonelake embed --lake {kept.uri}" and shown[1].startswith("tonelake ingest folder ")
    assert jobs.can_start("127.0.0.1") and not jobs.can_start("0.0.0.0") and not jobs.can_start(None)


def test_an_empty_lake_offers_to_add_a_folder_and_refuses_what_is_none(lake, offered, monkeypatch):
    test = page("library", lake, monkeypatch)
    assert "no songs yet" in test.info[0].value
    test.text_input(key="add folder").input("/nowhere")
    test.button[0].click().run()
    assert "is not a folder" in text_of(test) and not test.exception


def test_a_missing_lake_is_a_sentence(tmp_path, monkeypatch):
    lake = Lake(tmp_path / "lake")
    shutil.rmtree(lake.uri)
    assert "is not a lake" in text_of(page("library", lake, monkeypatch))


def test_the_page_follows_a_lake_that_is_being_written(lake, monkeypatch):
    fill(lake, 2, 2, seed=0)
    test = page("library", lake, monkeypatch)
    assert len(table(test)) == 2
    lake.clips.add(clip_rows(3, 2))
    lake.failures.record([Failure("ingest", "/x/<b>y.mp3", "<b>y.mp3: is empty (0 bytes)")])
    shown = table(test.run())
    assert len(shown) == 4 and shown.filter(pl.col("State") == "failed")["Title"].to_list() == ["<b>y"]


# -- jobs


@pytest.mark.slow
def test_a_folder_is_added_and_synced_by_buttons_in_processes_that_report(tmp_path, lake, offered, monkeypatch):
    folder = tmp_path / "music [a](b)"
    write(folder / "a.wav", melody(4, seed=1))
    test = page("library", lake, monkeypatch)
    test.text_input(key="add folder").input(str(folder))
    test.button[0].click().run()
    first = jobs.current_job(lake)
    assert first.wait(60) and first.state == "done", first.lines
    write(folder / "b.wav", melody(4, seed=2))
    test.run()
    assert "1 recordings: 1 clips new" in text_of(test) and len(table(test)) == 1
    button = next(button for button in test.button if button.label.startswith("Sync"))
    assert button.label == r"Sync music \[a\]\(b\)"
    button.click().run()                 # what the first job wrote is not taken for another process
    second = jobs.current_job(lake)
    assert second is not first and second.wait(60) and second.state == "done", second.lines
    test.run()
    assert "2 recordings: 1 clips new, 1 known" in text_of(test) and len(table(test)) == 2
    assert second.progress.total == 1 and not any(line.startswith("{") for line in second.lines)
    next(button for button in test.button if button.label == "Dismiss").click().run()
    assert "2 recordings" not in text_of(test)


@pytest.mark.slow
def test_a_second_job_is_refused_and_a_cancelled_one_keeps_its_work(tmp_path, offered, settled, monkeypatch):
    for number in range(30):
        write(tmp_path / f"music/{number}.wav", melody(3.2, seed=number))
    lake = Lake(tmp_path / "lake")
    ingest_folder(lake, tmp_path / "music", seconds=3.0)
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    job = Job(kind="embed", title="Embed", reason="", arguments=("embed", "--encoder", "fakes:SlowFakeEncoder"))
    running = jobs.start_job(lake, job)
    with pytest.raises(InputError, match="another job is running"):
        jobs.start_job(lake, job)
    test = page("library", lake, monkeypatch)
    assert "You can leave this page" in text_of(test)
    until = time.monotonic() + 60
    while running.progress is None and running.state == "running" and time.monotonic() < until:
        time.sleep(0.02)
    next(button for button in test.button if button.label == "Cancel").click().run()
    assert running.wait(60) and running.state == "cancelled", running.lines
    assert "Cancelled: finished work is stored" in text_of(test.run())
    again = jobs.start_job(lake, job)
    assert again.wait(60) and again.state == "done" and "clips embedded" in again.result()


def test_a_failing_command_shows_its_error(lake, offered, settled):
    running = jobs.start_job(lake, Job(kind="map", title="Map", reason="", arguments=("map",)))
    assert running.wait(60) and running.state == "failed"
    assert "tonelake embed" in running.result() and not running.result().startswith("error")


def test_a_job_is_refused_while_another_process_writes(lake, offered):
    job = Job(kind="map", title="Map", reason="", arguments=("map",))
    lake.clips.add(clip_rows(1, 1))
    with pytest.raises(InputError, match=r"another process wrote to it \d+ s ago"):
        jobs.start_job(lake, job)
    assert jobs.current_job(lake) is None


def test_two_apps_do_not_run_jobs_of_one_lake_at_once(lake, offered, settled):
    with writing(lake), pytest.raises(InputError, match="another process runs a job"):
        jobs.start_job(lake, Job(kind="map", title="Map", reason="", arguments=("map",)))


# -- in a browser


@pytest.fixture
def folder(tmp_path):
    """A folder of two songs."""
    for number in range(2):
        write(tmp_path / f"music/song{number}.wav", melody(4, seed=number), tags={"title": f"Song {number}", "artist": "Ada"})
    return tmp_path / "music"


@pytest.fixture
def served(tmp_path):
    """The app on a new lake."""
    with served_lake(Lake(tmp_path / "lake").uri) as address:
        yield address


@pytest.mark.slow
def test_music_is_added_by_keyboard_and_the_result_survives_a_reload(view, served, folder):
    view.goto(f"{served}/library")
    view.get_by_label("Folder of music on this computer").fill(str(folder))
    view.keyboard.press("Enter")
    report = view.locator(".st-key-jobs-result").get_by_text("2 recordings: 2 clips new").first
    report.wait_for()
    view.get_by_role("button", name="Embed all songs").wait_for()
    view.goto(f"{served}/")
    view.goto(f"{served}/library")
    report.wait_for()
    view.get_by_role("button", name="Dismiss").click()
    report.wait_for(state="detached")
    assert view.get_by_test_id("stMetricValue").first.inner_text() == "2"


@pytest.mark.slow
def test_the_library_fits_a_phone_and_a_row_is_chosen_by_touch(phone, served, folder, tmp_path):
    ingest_folder(Lake(tmp_path / "lake"), folder, seconds=3.0)
    phone.goto(f"{served}/library?find=song+1")
    table = phone.get_by_test_id("stDataFrame")
    table.get_by_test_id("data-grid-canvas").wait_for()
    phone.wait_for_function("document.querySelector('.stApp').dataset.testScriptState === 'notRunning'")
    assert phone.evaluate("document.scrollingElement.scrollWidth") <= 390
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    phone.touchscreen.tap(box["x"] + 16, box["y"] + 60)
    phone.get_by_text("song1.wav").wait_for()
    phone.get_by_role("button", name="Similar songs").tap()
    phone.wait_for_url("**/?song=*")
