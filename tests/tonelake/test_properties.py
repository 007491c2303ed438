"""Properties that hold for any input: cuts, windows, splits, tables, filters, names, ranges, keys."""

from __future__ import annotations

import string
import tempfile
import unicodedata
from itertools import combinations, groupby, pairwise
from pathlib import Path

import numpy as np
import polars as pl
from fakes import clip_rows
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sounds import encode

from tonelake.embed.windows import place_windows
from tonelake.evaluate.metrics import one_hot, per_class
from tonelake.evaluate.splits import make_splits
from tonelake.evaluate.targets import Targets
from tonelake.ingest import Cut
from tonelake.ingest.manifest import read_manifest
from tonelake.ingest.number_cells import is_missing, number_series
from tonelake.ingest.sources import to_path, to_source
from tonelake.ingest.tables import read_table
from tonelake.ingest.tags import clean, read_tags
from tonelake.store import DUPLICATE_COLUMN, InputError, KeyRows, Lake, TokenSequence, printable, rows_of, track_numbers
from tonelake.store.filters import quote
from tonelake.wav_file import parse_range

settings.register_profile("tests", derandomize=True, deadline=None, max_examples=80, database=None,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile("tests")

ANY_TEXT = st.text(max_size=60)
LABEL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


@given(st.floats(0.5, 36_000), st.floats(1.0, 600.0), st.floats(0.1, 1.0))
def test_clips_cover_a_recording_in_order_without_gaps(duration_s, seconds, share):
    hop = max(0.1, min(round(share * seconds, 3), seconds))
    assume(duration_s / hop < 20_000)
    spans = Cut(seconds, hop).spans(duration_s)
    assert spans and spans[0][0] == 0
    for (start, length), (after, _) in pairwise(spans):
        assert start < after <= start + length + 1e-6
        assert length <= seconds + 1e-6
    end = spans[-1][0] + spans[-1][1]
    assert end <= duration_s + 1e-6 and duration_s - end < max(5.0, seconds / 2) + 1e-6


@given(st.integers(1, 200_000), st.integers(100, 50_000), st.floats(0.1, 1.0), st.integers(0, 5_000))
def test_windows_cover_a_clip_once(samples, window, share, tail):
    hop = max(1, round(share * window))
    assume(samples / hop < 5_000)
    places = place_windows(samples, window, hop, tail)
    assert places[0].first == 0 and places[-1].last == samples
    assert all(a.last == b.first for a, b in pairwise(places))
    assert all(0 <= p.begin <= p.first < p.last <= p.end <= samples for p in places)
    assert all(p.end - p.begin <= window + tail for p in places)


@given(st.lists(LABEL, min_size=1, max_size=8), st.sampled_from(",;\t|"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_a_table_is_read_as_it_was_written(values, separator, encoding):
    import csv

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL)
            writer.writerow(["path", "some label"])
            writer.writerows([f"f{i}.wav", value] for i, value in enumerate(values))
        try:
            table = read_table(path)
        except InputError as error:
            assert "is not" in str(error) or "cells" in str(error)   # an InputError, never another one
            return
    found = table["some_label"]
    expected = [value.strip() or None for value in values]
    if found.dtype == pl.String:
        assert found.to_list() == expected or all(map(is_missing, expected))
    else:
        assert [None if is_missing(v) else float(v) for v in expected] == found.to_list()


@given(st.lists(st.one_of(
    st.none(), st.integers(-10**19, 10**19).map(str), st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?[0-9]{0,3}\.?[0-9]{0,3}([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.sampled_from(["nan", "NA", "-0", "+1"]),
), max_size=8))
def test_numbers_keep_every_cell_apart_and_as_written(cells):
    """A column becomes numeric only if its cells can be restored: no two merge, and each is the number that its text means."""
    found = number_series(cells)
    if found is None:
        return
    values = found.to_list()
    filled = [(cell, value) for cell, value in zip(cells, values, strict=True) if not is_missing(cell)]
    assert [value is None for value in values] == [is_missing(cell) for cell in cells]
    assert len({value for _, value in filled}) == len({cell for cell, _ in filled})
    for cell, value in filled:
        assert value == float(cell) if isinstance(value, float) else value == int(cell.removesuffix(".0"))
        assert not cell.startswith("+") and not (cell[:1] == "0" and cell[1:2].isdigit())


ODD = ("1.50", "007", "-0", "1e999", "٣", "nan", "../../etc/passwd", '"; drop', "a\nb", "x" * 9_000)
CELL = st.one_of(LABEL, st.sampled_from(ODD))


@given(st.lists(st.tuples(CELL, st.integers(0, 900), st.floats(0.25, 60), CELL), min_size=1, max_size=6),
       st.sampled_from(",;\t|"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_a_manifest_yields_one_span_for_each_row(rows, separator, encoding):
    """For any paths and labels, each row is one span of its file, with its label unchanged."""
    import csv

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL)
            writer.writerow(["path", "start", "seconds", "title", "my label"])
            writer.writerows([name, start, length, label, label] for name, start, length, label in rows)
        try:
            recordings, labels = read_manifest(path)
        except InputError as error:
            assert any(words in str(error) for words in ("is not", "cells", "has no path", "two different rows")), error
            return
    expected: dict[str, list] = {}
    for name, start, length, label in rows:
        given_labels = {"title": label.strip()} if label.strip() else {}
        listed = expected.setdefault(to_source(Path(folder) / name.strip()), [])
        if ((start, length), given_labels) not in listed:            # a row listed twice is one span
            listed.append(((start, length), given_labels))
    found = {
        one.source: [(span, {k: v for k, v in said.items() if k == "title"})
                     for span, said in zip(one.spans, one.span_labels, strict=True)]
        for one in recordings
    }
    assert found == expected and labels.frame.columns == ["title", "my_label"]
    for said, (_, _, _, label) in zip(labels.frame["my_label"], rows, strict=True):
        assert said == (label.strip() or None) or (said is None and is_missing(label.strip())) or float(said) == float(label)


@given(st.one_of(st.none(), st.text(max_size=2_000), st.integers(), st.binary(max_size=20)))
def test_any_tag_becomes_one_short_printable_line(value):
    found = clean(value)
    assert len(found) <= 300 and "\n" not in found and found == found.strip()
    odd = {c for c in found if not c.isprintable()}      # spaces, joiners and characters newer than this Python
    assert {unicodedata.category(c) for c in odd} <= {"Zs", "Cf", "Cn"} and not odd & set("\u202a\u202e\u2066\u2069\ufeff")
    assert clean(found) == found
    found.encode("utf-8")                                # no lone surrogates: the store would refuse them


@given(st.dictionaries(st.sampled_from(["title", "artist", "album"]), LABEL, max_size=3))
@settings(max_examples=20)
def test_tags_written_to_a_file_are_read_back(tags):
    with tempfile.TemporaryDirectory() as folder:
        file = encode(Path(folder) / "a.mp3", np.zeros((2_000, 1), np.float32), tags=tags)
        found = read_tags(file)
    assert set(found) <= set(tags)
    for name, text in tags.items():
        assert found.get(name, "") == clean(text)


@given(st.integers(0, 10_000), st.integers(3, 90), st.integers(1, 5), st.integers(1, 6),
       st.sampled_from(["random", "by:track", "by:piece", "folds:3", "folds:3:piece", "by:many"]))
@settings(max_examples=60)
def test_a_split_by_groups_keeps_each_track_and_group_on_one_side(seed, tracks, most, classes, how):
    """Clips of tracks of any size, pieces of any number of tracks, clips of several groups at once: each clip on one side."""
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(tracks), rng.integers(1, most + 1, tracks))
    clips = len(track)
    pieces = rng.integers(0, max(tracks // 2, 1), tracks)[track]
    frame = pl.DataFrame({
        "clip_id": [f"{i:020x}" for i in range(clips)], "track": [f"t{t}" for t in track], "start_s": np.arange(clips) * 1.0,
        "duration_s": np.ones(clips), "piece": [None if p % 7 == 6 else f"p{p}" for p in pieces],
        "many": [[f"g{g}" for g in rng.choice(tracks, rng.integers(0, 3))] for _ in range(clips)],
    })
    label = rng.integers(0, classes, clips)
    task = Targets(
        kind="multiclass", columns=("label",), names=tuple(f"c{i}" for i in range(classes)), clips=frame, targets=label,
        track=track,
    )
    try:
        splits, _ = make_splits(task, how, seed=seed)
    except InputError:
        return                                           # too few groups: an InputError
    again, _ = make_splits(task, how, seed=seed)
    column = how.rpartition(":")[2]
    for split, same in zip(splits, again, strict=True):
        sides = [split.train, split.valid, split.test]
        assert np.array_equal(np.sort(np.concatenate(sides)), np.arange(clips))
        assert all(np.array_equal(a, b) for a, b in zip(sides, (same.train, same.valid, same.test), strict=True))
        if how in ("random", "folds:3"):
            continue
        for groups in ("track", column):
            parts = [frame[groups].gather(rows) for rows in sides]
            seen = [set((part.explode() if part.dtype == pl.List else part).drop_nulls()) for part in parts]
            assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2]), (how, groups)
    if how.startswith("folds"):
        assert np.array_equal(np.sort(np.concatenate([split.test for split in splits])), np.arange(clips))


@given(ANY_TEXT)
def test_text_for_a_terminal_holds_no_control_characters(text):
    shown = printable(text)
    assert all(character.isprintable() for character in shown)
    assert text.isprintable() is (shown == text)


@given(st.lists(LABEL, min_size=8, max_size=14, unique=True))
@settings(max_examples=10)               # lists are long, since a lake takes longer to make than a value to look up
def test_a_quoted_value_matches_that_value_alone(values):
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        rows = clip_rows(1, len(values)).with_columns(artist=pl.Series(values))
        lake.clips.add(rows)
        for value in values:
            assert lake.clips.read(["artist"], where=f"artist = {quote(value)}")["artist"].to_list() == [value]


FILE_NAME = st.binary(min_size=1, max_size=200).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))


@given(FILE_NAME)
def test_any_file_name_survives_as_a_source(name):
    import os

    path = Path("/music") / os.fsdecode(name)
    source = to_source(path)
    source.encode("utf-8")                               # a text column holds it
    assert os.fsencode(to_path(source)) == os.fsencode(path)


@given(st.text(alphabet=string.printable, max_size=40), st.integers(1, 10_000))
def test_a_range_is_kept_or_refused(header, size):
    found = parse_range(header, size)
    assert found is None or 0 <= found[0] <= found[1] < size


@given(st.integers(0, 400), st.integers(0, 400), st.integers(1, 300))
def test_a_range_of_two_numbers_is_that_range(first, last, size):
    found = parse_range(f"bytes={first}-{last}", size)
    assert found == ((first, min(last, size - 1)) if first <= min(last, size - 1) else None)


@given(st.lists(ANY_TEXT, max_size=40, unique=True), st.lists(ANY_TEXT, max_size=10))
def test_key_rows_equal_those_of_a_dictionary(keys, wanted):
    known = {key: i for i, key in enumerate(keys)}
    asked = [*wanted, *keys[::2]]
    assert KeyRows(pl.Series(keys, dtype=pl.String)).of(asked).tolist() == [known.get(key, -1) for key in asked]


def test_keys_that_share_a_hash_are_distinguished(monkeypatch):
    """Among billions of keys two may share a hash; here all keys of one length do."""
    monkeypatch.setattr(pl.Series, "hash", lambda self: self.str.len_bytes().cast(pl.UInt64))
    keys = ["b", "a", "cc", "dd", "c", "eee", "aa", "bb"]
    asked = ["a", "x", "bb", "aa", "zzzz", "eee", "xxx", "b", "", "zz"]
    assert KeyRows(pl.Series(keys)).of(asked).tolist() == [keys.index(key) if key in keys else -1 for key in asked]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60))
def test_class_metrics_equal_those_of_scikit_learn(pairs):
    from sklearn.metrics import precision_recall_fscore_support

    truth, said = (np.array(side) for side in zip(*pairs, strict=True))
    names = [f"c{i}" for i in range(5)]
    found = per_class("multiclass", names, truth, [one_hot(said, 5).toarray().astype(np.float32)])
    precision, recall, f1, support = precision_recall_fscore_support(truth, said, labels=range(5), zero_division=0)
    assert found["support"].to_list() == support.tolist()
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        for ours, theirs, number in zip(found[name], expected, support, strict=True):
            assert ours is None or abs(ours - theirs) < 1e-6 or number == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["p", "q", "r", None])), min_size=1, max_size=12))
def test_clips_linked_by_names_and_duplicates_are_one_track(clips):
    tracks, marks = (list(side) for side in zip(*clips, strict=True))
    table = pl.DataFrame({"track": tracks, DUPLICATE_COLUMN: pl.Series(marks, dtype=pl.String)})
    numbers = track_numbers(table)
    parts = [{row} for row in range(len(clips))]
    for a, b in combinations(range(len(clips)), 2):
        if clips[a][0] == clips[b][0] or (clips[a][1] == clips[b][1] is not None):
            joined = next(part for part in parts if a in part) | next(part for part in parts if b in part)
            parts = [part for part in parts if not part & joined] + [joined]
    assert {frozenset(np.flatnonzero(numbers == number)) for number in set(numbers)} == set(map(frozenset, parts))
    assert len(set(track_numbers(table.drop(DUPLICATE_COLUMN)))) == table["track"].n_unique()


@given(st.lists(ANY_TEXT, unique=True, min_size=1, max_size=8), st.lists(ANY_TEXT, max_size=8))
def test_rows_of_ids_are_their_positions_and_minus_one_for_unknown_ids(ids, wanted):
    found = rows_of(pl.Series(ids), pl.Series(wanted, dtype=pl.String))
    assert found.tolist() == [ids.index(one) if one in ids else -1 for one in wanted]


@given(st.lists(st.sampled_from([0, 1, 2, 65_535]), max_size=20))
def test_runs_of_tokens_are_those_of_groupby(tokens):
    sequence = TokenSequence("clip", np.array(tokens, np.uint16), np.arange(len(tokens), dtype=np.float32))
    runs = [(token, next(places)[0]) for token, places in groupby(enumerate(tokens), key=lambda one: one[1])]
    assert list(zip(*(side.tolist() for side in sequence.runs()), strict=True)) == runs
