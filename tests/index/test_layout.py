"""Parts of a layout: principal components, reduction, alignment and placement, each against an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest

from tonelake.index.maps import layout
from tonelake.index.maps.layout import align_points, lay_out, place_new, principal, principal_directions


def unit_rows(rows, dim, seed=0, decay=0.9):
    """Return unit vectors with unequal variances per axis, around a centre other than the origin."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, dim)) * decay ** np.arange(dim) + 0.3
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("centred", [True, False])
def test_principal_components_equal_those_of_scikit_learn(centred):
    from sklearn.decomposition import PCA, TruncatedSVD

    vectors = unit_rows(300, 12)
    if centred:
        found = principal(vectors, 5, np.random.default_rng(0))
    else:
        directions, lost = principal_directions(vectors, 5)
        found = vectors @ directions
        beyond = vectors - found @ directions.T
        assert lost == pytest.approx((beyond**2).sum() / ((vectors - vectors.mean(axis=0)) ** 2).sum(), rel=1e-3)
    theirs = (PCA(5) if centred else TruncatedSVD(5, algorithm="arpack")).fit_transform(vectors.astype(np.float64))
    signs = np.sign((found * theirs).sum(axis=0))
    np.testing.assert_allclose(found, theirs * signs, atol=1e-5)


def test_the_sign_of_a_principal_direction_is_fixed():
    vectors = unit_rows(300, 12)
    found = principal(vectors, 5, np.random.default_rng(0))
    np.testing.assert_allclose(found, principal(vectors[::-1], 5, np.random.default_rng(1))[::-1], atol=1e-5)


def test_principal_directions_of_many_rows_come_from_a_sample(monkeypatch):
    vectors = unit_rows(2000, 12, decay=0.6)
    wanted = principal(vectors, 2, np.random.default_rng(0))
    monkeypatch.setattr(layout, "SAMPLE", 500)
    found = principal(vectors, 2, np.random.default_rng(0))
    assert not np.allclose(found, wanted, atol=1e-5)
    for mine, other in zip(found.T, wanted.T, strict=True):
        assert abs(np.corrcoef(mine, other)[0, 1]) > 0.98


@pytest.mark.parametrize("count", [3, 4, 7])
def test_more_components_than_dimensions_are_zeros(count):
    found = principal(unit_rows(20, 3), count, np.random.default_rng(0))
    assert found.shape == (20, count)
    np.testing.assert_array_equal(found[:, 3:], 0)
    assert (np.abs(found[:, :3]).max(axis=0) > 0).all()


@pytest.mark.parametrize(("kept", "lost"), [(4, 1.0), (4, 0.0), (12, 1.0)])
def test_neighbours_are_searched_in_the_strongest_principal_directions_and_ranked_by_all(monkeypatch, kept, lost):
    """With 4 of 12 directions twice as many candidates are found there; where these lose too much, all are compared."""
    from sklearn.decomposition import TruncatedSVD

    monkeypatch.setattr(layout, "REDUCED", kept)
    monkeypatch.setattr(layout, "MOST_LOST", lost)
    vectors = unit_rows(200, 12)
    found = lay_out(vectors, method="pca")
    full = vectors.astype(np.float64)
    cosines = full @ full.T
    np.fill_diagonal(cosines, -2)
    if kept < 12 and lost:
        low = TruncatedSVD(kept, algorithm="arpack").fit_transform(full)
        low /= np.linalg.norm(low, axis=1, keepdims=True)
        near = low @ low.T
        np.fill_diagonal(near, -2)
        others = np.argsort(-near, axis=1)[:, 30:]
        np.put_along_axis(cosines, others, -2, axis=1)
    np.testing.assert_allclose(found.cosines, -np.sort(-cosines, axis=1)[:, :15], atol=1e-5)
    assert (found.nearest == np.argsort(-cosines, axis=1)[:, :15]).mean() > 0.99      # except among equal cosines


def test_points_are_rotated_mirrored_and_translated_but_never_scaled():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((50, 2)).astype(np.float32)
    mirror = np.array([[np.cos(1), np.sin(1)], [np.sin(1), -np.cos(1)]])
    np.testing.assert_allclose(align_points(points, points @ mirror + [3, -7]), points @ mirror + [3, -7], atol=1e-5)
    np.testing.assert_allclose(align_points(points, 5 * points @ mirror + [3, -7]) - [3, -7],
                               (points - points.mean(axis=0)) @ mirror + 5 * points.mean(axis=0) @ mirror, atol=1e-5)


def test_the_place_of_a_new_clip_equals_the_weighted_mean_of_its_neighbours():
    known, new = unit_rows(60, 6, seed=1), unit_rows(8, 6, seed=2)
    points = np.random.default_rng(5).standard_normal((60, 2)).astype(np.float32) * 4
    found = place_new(new, known, points, 9)
    for row in range(8):
        far = np.linalg.norm(known.astype(np.float64) - new[row], axis=1)
        near = np.argsort(far)
        np.testing.assert_array_equal(found.nearest[row], near[:9])
        far = far[near[:5]]
        weight = np.exp(-(far - far[0]) / far.mean())
        np.testing.assert_allclose(found.points[row], np.average(points[near[:5]], axis=0, weights=weight), atol=1e-3)


def test_a_copy_of_a_mapped_clip_is_placed_on_its_point():
    known = unit_rows(60, 6)
    points = np.random.default_rng(5).standard_normal((60, 2)).astype(np.float32)
    found = place_new(known[[7] * 3], known[[7] * 5], points[[7] * 5], 15)
    np.testing.assert_allclose(found.points, points[[7] * 3], atol=1e-5)
