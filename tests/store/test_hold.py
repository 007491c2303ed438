"""Holds: within one, a lake is read at one state; a new one follows every change."""

from __future__ import annotations

import threading

import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows, fill

from tonelake import index
from tonelake.embed.settings import describe_space
from tonelake.store import Hold, Holding, InputError, KeyRows, Lake, SpaceNotFound, look_once
from tonelake.store import key_rows as few_or_many


@pytest.fixture
def lake(tmp_path) -> Lake:
    lake = Lake(tmp_path / "lake")
    fill(lake, tracks=6, clips_a_track=3, seed=4)
    return lake


def elsewhere(write) -> None:
    """Write in another thread, which reads in no hold."""
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()


def test_a_held_lake_gives_the_answers_of_the_lake(filled):
    hold = Hold()
    for where in (None, "artist = 'Artist 1'"):
        free = index.similar(filled, "0" * 20, where=where)
        with hold.reading():
            assert index.similar(filled, "0" * 20, where=where).equals(free)
            assert filled.clips.read(where=where).equals(filled.clips.read(where=where))
        assert index.similar(filled, "0" * 20, where=where).equals(free)


def test_within_a_hold_another_writers_rows_are_not_seen(lake):
    hold, other = Hold(), Lake(lake.uri)
    with hold.reading():
        before = lake.clips.table.version, lake.clips.count(), lake.clips.columns()
        elsewhere(lambda: other.clips.add(clip_rows(8, 3).with_columns(mood=pl.lit("calm"))))
        assert (lake.clips.table.version, lake.clips.count(), lake.clips.columns()) == before
        assert len(lake.clips.read()) == len(lake.clips.ids()) == 18
    assert lake.clips.count() == 24 and "mood" in lake.clips.columns()


def test_a_table_that_does_not_exist_is_held_as_well(tmp_path):
    hold, lake = Hold(), Lake(tmp_path / "lake")
    with hold.reading():
        assert lake.clips.count() == 0 and lake.clips.table.version == 0 and not len(lake.clips.read())
        elsewhere(lambda: Lake(lake.uri).clips.add(clip_rows(1, 1)))
        assert lake.clips.count() == 0
    assert lake.clips.count() == 1


def test_a_write_within_a_hold_is_seen_within_it(lake):
    with Hold().reading():
        assert lake.clips.count() == 18
        lake.clips.add(clip_rows(7, 3).with_columns(mood=pl.lit("calm")))
        assert lake.clips.count() == 21 and "mood" in lake.clips.columns()


def test_an_unknown_space_is_looked_up_again(lake):
    with Hold().reading():
        with pytest.raises(SpaceNotFound):
            lake.spaces.get("second")
        lake.spaces.make(describe_space(FakeEncoder(), "second", 5.0))
        assert lake.spaces.get("second").name == "second"


def test_a_hold_is_of_its_threads_alone(lake):
    looks: list[str] = []

    def look(name: str) -> str:
        return look_once("key", lambda: looks.append(name) or name)

    hold = Hold()
    with hold.reading():
        assert [look("a"), look("b")] == ["a", "a"]
        elsewhere(lambda: look("other"))
        with Hold().reading():
            assert look("inner") == "inner"
        assert look("c") == "a"
    assert look("outside") == "outside" and looks == ["a", "other", "inner", "outside"]
    with hold.reading():
        assert look("d") == "a"          # a hold can be entered again


def test_the_present_hold_changes_with_the_lake(lake):
    holding = Holding(lake.uri)
    first = holding.current()
    assert holding.current() is first
    changes = [
        lambda: Lake(lake.uri).clips.update(pl.DataFrame({"clip_id": ["0" * 20], "title": ["New"]})),
        lambda: lake.spaces.make(describe_space(FakeEncoder(), "second", 5.0)),
        lambda: lake.spaces.set_default("second"),
        holding.renew,
    ]
    for change in changes:
        before = holding.current()
        change()
        assert holding.current() is not before


def test_a_hold_ends_after_a_while_even_if_no_change_is_seen(lake, monkeypatch):
    holding = Holding(lake.uri)
    first = holding.current()
    monkeypatch.setattr("tonelake.store.hold.time.monotonic", lambda: 1e12)
    assert holding.current() is not first


def test_a_lake_that_is_gone_has_a_hold(tmp_path):
    holding = Holding(str(tmp_path / "none"))
    assert isinstance(holding.current(), Hold)


def test_a_few_keys_are_found_as_many_are(monkeypatch):
    keys = pl.Series([f"{number % 90:04x}" for number in range(100)])
    wanted = ["0005", "none", "0059", "0005", "", "005a"]
    rows = KeyRows(keys)
    few = rows.of(wanted)
    monkeypatch.setattr(few_or_many, "FEW", 0)
    assert few.tolist() == rows.of(wanted).tolist()
    assert [keys[row] if row >= 0 else None for row in few.tolist()] == ["0005", None, "0059", "0005", None, None]


def test_hits_without_descriptions_are_the_same_hits(filled):
    described = index.similar(filled, "0" * 20, order="walk")
    plain = index.similar(filled, "0" * 20, order="walk", described=False)
    assert plain.columns == ["rank", "score", "clip_id", "clips"] and plain.equals(described.select(plain.columns))
    with pytest.raises(InputError):
        index.similar(filled, "0" * 20, k=0, described=False)
