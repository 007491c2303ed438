"""Bach's chorales: the figures of the seed's rule, the clean set, notes compared with music21's, and the organ's sound."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from commands import run

from tonelake import ingest
from tonelake.ingest import AudioError, chorale_scores, ingest_chorales, read_source
from tonelake.ingest.chorale_scores import Score, chorale_names, load_score, part_notes
from tonelake.ingest.organ import envelope, render, tone
from tonelake.store import Added, InputError, Lake


class Parsing:
    """A stand-in for `DecoderPool` that parses in this process, and compares each part's ties with `followed`."""

    def __init__(self, count: int = 1) -> None:
        self.compared = self.joined = 0
        self.faults: list[str] = []

    def __enter__(self) -> Parsing:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, requests):
        for request in requests:
            yield request, {"score": self.parse(request["source"].removeprefix("chorale:")).to_dict()}

    def parse(self, name: str) -> Score:
        from music21 import converter

        parsed, notes_of, original = [], {}, converter.parse
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(converter, "parse", lambda *file, **how: parsed.append(original(*file, **how)) or parsed[-1])
            patch.setattr(chorale_scores, "part_notes", lambda part: notes_of.setdefault(part, part_notes(part)))
            score = load_score.__wrapped__(name)
        self.compare(parsed[-1], notes_of, name)
        return score

    def compare(self, parsed, notes_of, name: str) -> None:
        from music21 import stream

        parts = list((parsed.scores[0] if isinstance(parsed, stream.Opus) else parsed).parts)
        assert notes_of.keys() == set(parts)
        for part in parts:
            notes, joined = followed(part)
            mine = sorted(notes_of[part])
            self.joined += joined
            if np.shape(mine) != np.shape(notes) or not np.allclose(mine, notes, rtol=1e-7, atol=1e-6):
                self.faults.append(name)
        self.compared += 1


def followed(part) -> tuple[list[tuple[float, float, float]], int]:
    """Notes of a part and the number of joined ties: from each note that no tie leads to, follow its ties one by one."""
    # (start, length, MIDI pitch, tie)
    raw = [
        (offset_in(part, element), element.quarterLength, pitch.midi, member.tie.type if member.tie else "")
        for element in part.recurse().notes if not element.duration.isGrace
        for pitch, member in zip(element.pitches, element.notes if element.isChord else [element], strict=True)
    ]
    left = sorted(raw, key=lambda note: note[0])
    notes, joined = [], 0
    while left:
        start, length, midi, tie = left.pop(0)
        while tie in ("start", "continue"):
            meets = (start + length, midi)
            follower = next((n for n in left if (n[0], n[2]) == meets and n[3] in ("stop", "continue")), None)
            if follower is None:
                break
            left.remove(follower)
            length, tie = length + follower[1], follower[3]
            joined += 1
        notes.append((float(start), float(length), float(midi)))
    return sorted(notes), joined


def offset_in(part, element):
    """The offset of an element that `part.recurse` gave.  A tenth of the time of music21's `getOffsetInHierarchy`."""
    offset = 0
    while element is not part:
        offset, element = offset + element.offset, element.activeSite
    return offset


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The whole corpus by the seed's rule, the command's messages, and the comparison of its ties: parsed once, a minute."""
    lake, parsing = tmp_path_factory.mktemp("corpus") / "lake", Parsing()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.datasets.chorales, "DecoderPool", lambda count: parsing)
        done = run("ingest", "chorales", "--seed-rule", lake=lake)
    assert done.returncode == 0, done.stderr
    return Lake(lake), done.stderr, parsing


@pytest.mark.slow
def test_the_seeds_rule_gives_430_pieces_and_3008_snippets(corpus):
    lake, messages, _ = corpus
    assert "430 recordings: 3008 clips new, 0 known" in messages
    assert "430 pieces, 3008 snippets of 4 bars every 2, by the seed's rule" in messages
    assert lake.failures.read().is_empty()
    clips = lake.clips.read()
    assert (len(clips), clips["piece"].n_unique()) == (3008, 430)
    largest = clips["piece"].value_counts().sort("count", descending=True)[:2].rows()
    assert largest == [("bwv248.64-6", 33), ("bwv79.3", 30)]


@pytest.mark.slow
def test_tunes_group_pieces_that_share_a_melody(corpus):
    lake, *_ = corpus
    tunes = lake.clips.read(["piece", "tune"]).unique()
    tune_of = dict(tunes.iter_rows())
    for one, other in [("bwv117.4", "bwv177.4"), ("bwv244.15", "bwv244.44"), ("bwv274", "bwv62.6"), ("bwv39.7", "bwv194.6")]:
        assert tune_of[one] == tune_of[other]
    chorales = tunes.filter(~pl.col("piece").str.starts_with("riemenschneider"))
    assert chorales["tune"].n_unique() == 206


@pytest.mark.slow
def test_labels_agree_with_the_score(corpus):
    lake, *_ = corpus
    row = lake.clips.read(where="piece = 'bwv66.6' AND start_s = 0").row(0, named=True)
    assert (row["key"], row["meter"], row["bwv"], row["dataset"]) == ("f# minor", "4/4", "66.6", "chorales")
    meters = set(lake.clips.read(["meter"], where="piece = 'bwv304'")["meter"])
    assert meters == {"4/4", "3/4"}      # the meter changes in bar 9


@pytest.mark.slow
def test_the_clean_set_has_no_analyses_and_no_repeated_windows(lake, monkeypatch):
    """BWV 177.4 repeats two windows of 117.4, and 279 five of 158.4."""
    pieces = ["bwv117.4.mxl", "bwv158.4.mxl", "bwv177.4.mxl", "bwv279.mxl", "bwv66.6.mxl"]
    analysis = next(name for name in ingest.datasets.chorales.chorale_names() if name.endswith(".rntxt"))
    monkeypatch.setattr(ingest.datasets.chorales, "chorale_names", lambda: [*pieces, analysis])
    report = ingest_chorales(lake)
    assert report.recordings == len(pieces)
    assert "clean rule (no Roman-numeral analyses; 7 windows that repeat another left out)" in report.notes[0]
    clips = lake.clips.read()
    assert set(clips["piece"]) == {name.removesuffix(".mxl") for name in pieces}
    contents = set()
    for row in clips.iter_rows(named=True):
        score = load_score(row["source"].removeprefix("chorale:"))
        notes = score.window(row["start_s"] / score.quarter_s, row["duration_s"] / score.quarter_s)
        contents.add(np.round(np.array(sorted(notes.tolist())), 4).tobytes())
    assert len(contents) == len(clips)
    assert ingest_chorales(lake).added == Added(known=len(clips))


def test_clips_of_notes_that_were_read_differently_before_are_superseded(lake, monkeypatch):
    monkeypatch.setattr(ingest.datasets.chorales, "chorale_names", lambda: ["bwv66.6.mxl"])
    ingest_chorales(lake)
    stored = lake.clips.read()
    other = {"clip_id": pl.lit("0" * 20), "digest": pl.lit("0" * 32), "recording": pl.lit("0" * 32)}
    lake.clips.add(stored.head(1).with_columns(**other).drop("added_at"))
    report = ingest_chorales(lake)
    assert (report.superseded, report.added) == (1, Added(known=len(stored)))
    states = dict(lake.clips.read(["clip_id", "state"], superseded=True).iter_rows())
    assert states["0" * 20] == "superseded" and set(states.values()) == {None, "superseded"}


def test_a_piece_that_cannot_be_parsed_is_a_recorded_failure_and_the_others_are_ingested(lake, monkeypatch):
    monkeypatch.setattr(ingest.datasets.chorales, "chorale_names", lambda: ["bwv66.6.mxl", "bwv9999.mxl"])
    report = ingest_chorales(lake)
    assert (report.recordings, report.failed) == (2, 1)
    failure = lake.failures.read().row(0, named=True)
    assert failure["source"] == "chorale:bwv9999.mxl" and "is not in the corpus of the installed music21" in failure["error"]
    assert set(lake.clips.read()["piece"]) == {"bwv66.6"}


def test_a_score_survives_a_round_trip_through_json():
    score = load_score("bwv304.mxl")     # two meters
    copy = Score.from_dict(json.loads(json.dumps(score.to_dict())))
    assert copy.digest == score.digest and np.array_equal(copy.bars, score.bars)
    for name in ("meters", "key", "tune", "title", "voices", "quarter_s", "piece"):
        assert getattr(copy, name) == getattr(score, name)


def test_notes_equal_music21s_with_ties_joined():
    """Reference: music21's stripTies."""
    from music21 import converter

    from tonelake.ingest.chorale_scores import _paths

    for name in ("bwv66.6.mxl", "bwv1.6.mxl", "bwv281.krn"):
        score = load_score(name)
        stripped = converter.parse(_paths()[name], forceSource=True).stripTies()
        theirs = sorted(
            (float(n.getOffsetInHierarchy(stripped)), float(n.quarterLength), float(pitch.midi))
            for n in stripped.recurse().notes if not n.duration.isGrace
            for pitch in n.pitches
        )
        np.testing.assert_allclose(sorted(map(tuple, score.notes)), theirs)


def test_a_tie_across_a_gap_joins_nothing():
    """The tenor of BWV 362 has a tied B flat at 69 whose other end begins at 74, under five other notes of the voice."""
    notes = [tuple(note) for note in load_score("bwv362.mxl").notes.tolist()]
    assert [note for note in notes if note[0] in (69.0, 74.0) and note[2] == 58.0] == [(69.0, 1.0, 58.0), (74.0, 1.0, 58.0)]


def test_a_tie_is_joined_past_a_note_of_another_voice_with_the_same_pitch():
    """The oboe da caccia of BWV 248.23-2 holds E in one voice from 31.5 to 42 while the other voice plays it three times."""
    notes = [tuple(note) for note in load_score("bwv248.23-2.mxl").notes.tolist()]
    assert (31.5, 10.5, 64.0) in notes and (37.5, 0.75, 64.0) in notes


def tied(pitches, quarters, ties):
    """A note or chord with a tie on each pitch."""
    from music21 import chord, note, tie

    element = chord.Chord(pitches.split(), quarterLength=quarters) if " " in pitches else note.Note(
        pitches, quarterLength=quarters
    )
    for member, kind in zip(element.notes if element.isChord else [element], ties, strict=True):
        member.tie = tie.Tie(kind) if kind else None
    return element


@pytest.mark.parametrize(("voices", "expected"), [
    # chords: only the tied pitch is joined, though music21 gives the chord the tie of its first tied note
    ([[("C4 E4", 1, (None, "start")), ("C4 E4", 1, (None, "stop"))]], [(0, 1, 60), (0, 2, 64), (1, 1, 60)]),
    # a chain, and a tie without its other end
    ([[("C4", 1, ("start",)), ("C4", 1, ("continue",)), ("C4", 2, ("stop",)), ("C4", 1, ("start",))]],
     [(0, 4, 60), (4, 1, 60)]),
    # the second end without the first
    ([[("D4", 1, (None,)), ("D4", 1, ("stop",))]], [(0, 1, 62), (1, 1, 62)]),
    # across a gap
    ([[("C4", 1, ("start",)), ("D4", 1, (None,)), ("C4", 1, ("stop",))]], [(0, 1, 60), (1, 1, 62), (2, 1, 60)]),
    # from one voice to another, and two voices in unison
    ([[("C4", 1, (None,)), ("E4", 1, ("stop",))], [("E4", 1, ("start",)), ("C4", 1, (None,))]],
     [(0, 1, 60), (0, 2, 64), (1, 1, 60)]),
    ([[("C4", 1, ("start",)), ("C4", 1, ("stop",))], [("C4", 1, ("start",)), ("C4", 1, ("stop",))]],
     [(0, 2, 60), (0, 2, 60)]),
    # triplets, whose times are fractions
    ([[("C4", "1/3", ("start",)), ("C4", "1/3", ("stop",)), ("D4", "1/3", (None,))]], [(0, 2 / 3, 60), (2 / 3, 1 / 3, 62)]),
])
def test_a_tie_joins_only_what_begins_where_it_ends(voices, expected):
    from fractions import Fraction

    from music21 import stream

    bar = stream.Measure()
    for number, notes in enumerate(voices):
        voice = stream.Voice(id=number)
        for pitches, quarters, ties in notes:
            voice.append(tied(pitches, Fraction(quarters), ties))
        bar.insert(0, voice)
    part = stream.Part()
    part.append(bar)
    np.testing.assert_allclose(sorted(part_notes(part)), sorted(expected), atol=1e-9)


@pytest.mark.slow
def test_in_the_whole_corpus_only_ties_that_meet_are_joined(corpus):
    """Reference: `followed`.  The seed's rule leaves out the Humdrum files."""
    *_, parsing = corpus
    for name in chorale_names():
        if name.endswith(".krn"):
            parsing.parse(name)
    assert not parsing.faults and parsing.compared == len(chorale_names()) == 433
    assert parsing.joined > 100


def test_a_clip_is_its_span_of_the_piece():
    """The pitch of the strongest partial in a window's samples is one of its notes."""
    score = load_score("bwv66.6.mxl")
    start_s = float(score.bars[3, 0]) * score.quarter_s
    sound = read_source("chorale:bwv66.6.mxl", start_s, 0.5, 24_000)
    assert len(sound) == 12_000
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 96_000))
    strongest_hz = float(spectrum[:4_000].argmax()) * 24_000 / 96_000
    midi = 69 + 12 * np.log2(strongest_hz / 440)
    notes = score.window(start_s / score.quarter_s, 0.5 / score.quarter_s)[:, 2]
    assert min(abs((midi - notes + 6) % 12 - 6)) < 0.3
    with pytest.raises(AudioError, match="its notes differ from those ingested"):
        read_source("chorale:bwv66.6.mxl", 0, 1, 24_000, "0" * 32)
    with pytest.raises(AudioError, match="is not in the corpus"):
        read_source("chorale:../../etc/passwd", 0, 1, 24_000)


def test_the_organ_is_in_tune_starts_softly_and_stays_below_full_scale():
    sound = tone(69, 24_000, 24_000)
    assert np.abs(np.fft.rfft(sound)).argmax() == 440
    assert abs(sound[0]) < 1e-3
    assert abs(sound[-1]) < 1e-2
    chord = np.array([[0, 2, 48], [0, 2, 55], [0, 2, 64], [0, 2, 72.0]])
    assert 0.1 < np.abs(render(chord, 2.0, 24_000)).max() <= 1
    assert envelope(10, 24_000).max() <= 1


def test_nothing_above_the_nyquist_frequency_folds_back():
    """A high note at a low rate has only its own partials."""
    spectrum = np.abs(np.fft.rfft(tone(105, 8_000, 8_000) * np.hanning(8_000)))
    peaks = np.flatnonzero(spectrum > spectrum.max() * 1e-3)
    assert peaks.min() > 3_510 / 2
    assert set(np.round(peaks / 3_520)) == {1.0}


def test_notes_are_cut_at_both_ends_of_the_rendered_span():
    notes = np.array([[-1.0, 1.5, 60], [0.8, 9.0, 67]])
    sound = render(notes, 1.0, 24_000)
    assert len(sound) == 24_000
    assert np.abs(sound[:10_000]).max() > 0.05
    assert np.abs(sound[13_000:19_000]).max() == 0


@pytest.mark.parametrize("wrong", [{"bars": 0}, {"hop": 0}, {"limit": 0}])
def test_settings_below_1_are_refused(lake, wrong):
    with pytest.raises(InputError, match="at least 1"):
        ingest_chorales(lake, **wrong)
