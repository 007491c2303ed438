"""The report on mixtures of spaces, against average precision by scikit-learn and a jackknife written out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import run
from fakes import clip_rows
from sklearn.metrics import average_precision_score

from tonelake import index
from tonelake.evaluate import Estimate
from tonelake.index.separation.mixture_report import MixtureReport
from tonelake.store import InputError, Lake, Space

TRACKS, DIM = 40, 12


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Spaces `one` and `two` that know different halves of what separates ten artists, `noise`, and `copy` of `one`."""
    lake = Lake(tmp_path_factory.mktemp("mixtures") / "lake")
    rows = clip_rows(TRACKS, 3)
    lake.clips.add(rows)
    ids, artist, rng = rows["clip_id"].to_list(), np.repeat(np.arange(TRACKS // 4), 12), np.random.default_rng(3)

    def draw(strength):
        return strength * rng.standard_normal((TRACKS // 4, DIM))[artist] + rng.standard_normal((len(ids), DIM)) + 2

    one = draw(0.7)
    spaces = {"one": one, "two": draw(0.7), "noise": draw(0), "copy": one}
    for name, vectors in spaces.items():
        space = lake.spaces.make(Space(
            name=name, revision=name, sample_rate=24_000, layers=("x",), dims=(DIM,), window_s=30.0, hop_s=30.0,
            precision="float32",
        ))
        number = len(ids) - (3 if name == "two" else 0)
        layers = [vectors[:number].astype(np.float32)]
        lake.vectors(space).add(ids[:number], layers, layers, [1] * number)
    return lake


def precision(hits, scores):
    """The average precision of one query without ties."""
    ordered = hits[np.argsort(-scores)]
    return (np.cumsum(ordered) / np.arange(1, len(ordered) + 1))[ordered].mean()


def average_precision(lake, weights, left_out=None):
    """The mean average precision by artist of a mixture, clips of the query's track left out, and without one track."""
    known = lake.vectors(lake.spaces.get("two")).ids()
    clips = lake.clips.read(["clip_id", "artist", "track"]).join(
        known.to_frame(), on="clip_id", how="semi", maintain_order="left"
    )
    total = 0.0
    for name, weight in weights.items():
        vectors = lake.vectors(lake.spaces.get(name)).take(clips["clip_id"].to_list(), 0).vectors.astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = vectors @ vectors.T
        total = total + weight * (cosines - cosines.mean(axis=1, keepdims=True)) / cosines.std(axis=1, keepdims=True)
    artist, track = clips["artist"].to_numpy(), clips["track"].to_numpy()
    kept = track != left_out
    return float(np.mean([
        precision(artist[others] == artist[row], total[row, others])
        for row in np.flatnonzero(kept) for others in [kept & (track != track[row])]
    ]))


def test_figures_equal_their_definitions(lake):
    hits, scores = np.arange(50) % 7 == 0, np.random.default_rng(0).standard_normal(50)
    assert precision(hits, scores) == pytest.approx(average_precision_score(hits, scores))
    report = index.report_mixture(lake, "artist", "one:0.6,two:0.4")
    rows = {row["name"]: row for row in report.table.to_dicts()}
    assert list(rows) == ["one/x", "two/x", "mixture"]
    weights = {"one": 0.6, "two": 0.4}
    expected = [average_precision(lake, {"one": 1}), average_precision(lake, {"two": 1}), average_precision(lake, weights)]
    assert [row["map"] for row in rows.values()] == pytest.approx(expected, abs=1e-4)
    assert report.gain.value == pytest.approx(expected[2] - report.better.value, abs=1e-4)
    assert min(expected[:2]) - 0.05 < report.better.value < max(expected[:2]) + 0.05
    assert "117 of 120 clips are compared" in report.coverage and report.units == "over 39 tracks"


def test_a_mixture_of_complementary_spaces_beats_its_better_half(lake):
    report = index.report_mixture(lake, "artist", {"one": 0.5, "two": 0.5})
    assert report.gain.low > 0 and report.reliable and report.crossfitted
    assert "the mixture finds artist better than its better half" in report.summary()


@pytest.mark.parametrize(("spaces", "sentence"), [
    ("one:0.5,noise:0.5", "do not rely on it: it retrieves less well than its better half"),
    ("one:0.5,copy:0.5", "do not rely on it: the interval of the difference includes 0"),
])
def test_a_mixture_with_a_weaker_or_an_equal_space_is_not_relied_on(lake, spaces, sentence):
    report = index.report_mixture(lake, "artist", spaces)
    assert not report.reliable and sentence in report.summary()
    if "copy" in spaces:
        assert report.gain.value == pytest.approx(0, abs=1e-6)


def test_the_interval_of_the_difference_is_a_paired_jackknife(lake):
    """Both halves equal `one` in order, so the better half is `one` and no choice adds to the spread."""
    report = index.report_mixture(lake, "artist", {"one": 0.25, "copy": 0.25, "two": 0.5}, over="track", across="track")
    tracks = lake.clips.read(["track"], where="track != 'track039'")["track"].unique().to_list()
    gains = [
        average_precision(lake, {"one": 0.5, "two": 0.5}, track) - average_precision(lake, {"one": 1}, track)
        for track in tracks
    ]
    error = np.sqrt((len(gains) - 1) / len(gains) * np.square(np.array(gains) - np.mean(gains)).sum())
    half = (report.gain.high - report.gain.low) / 2
    assert half == pytest.approx(2.0244 * error, rel=0.25)           # t of 38 degrees; artists as strata narrow it somewhat


def test_too_few_units_compare_with_the_better_half_of_all(lake):
    report = index.report_mixture(lake, "artist", "one,two", where="track IN ('track000', 'track001', 'track004', 'track005')")
    assert report.better.value <= max(report.table["map"][:2]) + 1e-9 or report.crossfitted
    unknown = float("nan")
    empty = MixtureReport(
        column="artist", mixture="m", table=report.table, better=report.better, crossfitted=False,
        gain=Estimate(0.1, unknown, unknown), coverage="", left_out="", units="", queries=1,
    )
    assert "too few units for an interval" in empty.verdict and "too few to hold some out" in empty.summary()


def test_the_command_reports_a_mixture_and_refuses_options_of_one_space(lake):
    done = run("layers", "artist", "--spaces", "one:0.5,noise:0.5", lake=lake.uri)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == ["one/x", "noise/x", "mixture"]
    assert "do not rely on it" in done.stderr and "0.5 × one/x + 0.5 × noise/x" in done.stderr
    assert run("layers", "artist", "--spaces", "one,two", "--effects", lake=lake.uri).returncode == 2
    with pytest.raises(InputError, match="needs two spaces"):
        index.report_mixture(lake, "artist", "one")
