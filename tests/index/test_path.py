"""Paths between clips, compared with a search over all assignments."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.store import InputError


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def expected(lake, start, end, steps, layer, allowed):
    """(rows, scores) of the best assignment, by trying all of them among the allowed clips."""
    vectors = unit(lake.vectors().layer(layer).vectors)
    angle = np.arccos(vectors[start] @ vectors[end])
    places = np.arange(1, steps + 1) / (steps + 1)
    points = [(np.sin((1 - t) * angle) * vectors[start] + np.sin(t * angle) * vectors[end]) / np.sin(angle) for t in places]
    scores = np.stack(points) @ vectors.T
    return max(permutations(allowed, steps), key=lambda rows: scores[np.arange(steps), rows].sum()), scores


def test_a_path_is_the_best_of_all(filled):
    ids = filled.vectors().ids().to_list()
    rng = np.random.default_rng(3)
    for start, end in ((3, 200), (40, 120)):
        allowed = rng.choice([r for r in range(240) if r not in (start, end)], 30, replace=False)
        where = f"clip_id IN ({', '.join(repr(ids[r]) for r in allowed)})"
        found = index.path(filled, ids[start], ids[end], steps=3, layer=1, where=where, clips=True)
        rows, scores = expected(filled, start, end, 3, 1, [int(r) for r in allowed])
        assert found["clip_id"].to_list() == [ids[start], *(ids[r] for r in rows), ids[end]]
        np.testing.assert_allclose(found["score"][1:-1], scores[np.arange(3), rows], atol=2e-6)
        assert found["place"].to_list() == [0, 0.25, 0.5, 0.75, 1]


def test_stations_lie_between_the_ends_and_none_is_repeated(filled):
    ids = filled.vectors().ids().to_list()
    found = index.path(filled, ids[0], ids[239], steps=9, layers="all", clips=True)
    assert found["clip_id"].n_unique() == 11
    assert found["to_start"][0] == pytest.approx(1) == found["to_end"][-1]
    nearer = (found["to_end"] - found["to_start"]).to_numpy()
    assert np.corrcoef(nearer, np.arange(11))[0, 1] > 0.8            # the end comes nearer on the whole


def test_fewer_clips_than_stations(filled):
    ids = filled.vectors().ids().to_list()
    found = index.path(filled, ids[0], ids[239], steps=9, where="track = 'track005' AND start_s < 12", clips=True)
    assert len(found) == 2 + 3
    assert len(index.path(filled, ids[0], ids[239], where="year = 1")) == 2


def test_impossible_paths_are_refused(filled):
    ids = filled.vectors().ids().to_list()
    with pytest.raises(InputError, match="are the same"):
        index.path(filled, ids[0], ids[0])
    with pytest.raises(InputError, match="0 stations"):
        index.path(filled, ids[0], ids[1], steps=0)


def test_the_command(filled):
    ids = filled.vectors().ids().to_list()
    run = CliRunner().invoke(app, ["path", ids[0], ids[200], "--steps", "4", "--lake", filled.uri])
    assert run.exit_code == 0, run.output
    assert len(run.stdout.splitlines()) == 6
