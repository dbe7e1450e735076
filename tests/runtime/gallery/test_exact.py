import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegeo.runtime.gallery import exact as search_module
from edgegeo.runtime.gallery.exact import exact_search, search_parts, take_rows, widened


def unit(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reference(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    scores = scores.astype(np.float32)
    rows = np.array([np.lexsort((np.arange(len(vectors)), -line))[:k] for line in scores])
    return rows, np.take_along_axis(scores, rows, axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("k", [1, 10, 5000])
def test_equals_sorting_everything(monkeypatch: pytest.MonkeyPatch, dtype: type, k: int) -> None:
    monkeypatch.setattr(search_module, "_BLOCK_BYTES", 4 * 24 * 1024)
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, 5000, 24).astype(dtype), unit(rng, 40, 24)
    rows, scores = exact_search(vectors, queries, k)
    expected_rows, expected_scores = reference(vectors, queries, k)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    assert (rows == expected_rows).mean() > 0.9999


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 10_000))
def test_ties_go_to_the_lower_row(count: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    few = unit(rng, 3, 8)
    vectors = few[rng.integers(0, 3, count)]
    query = few[:1]
    rows, scores = exact_search(vectors, query, k)
    assert rows.shape == (1, min(k, count))
    expected, _ = reference(vectors, query, k)
    np.testing.assert_array_equal(rows, expected)
    assert (np.diff(scores[0]) <= 0).all()


def test_halves_are_widened_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 16)
    assert len(halves) * 16 == (1 << 16) - 2 * 1024
    expected = halves.astype(np.float32)
    np.testing.assert_array_equal(widened(halves).view(np.int32), expected.view(np.int32))
    np.testing.assert_array_equal(widened(halves[::-2, 1:9]), expected[::-2, 1:9])
    assert widened(expected) is expected
    assert widened(halves[:0]).shape == (0, 16)


def test_equal_rows_far_apart_tie_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng, 4001, 33)
    twins = [7, 1500, 2999, 4000]
    vectors[twins] = vectors[7]
    query = vectors[7:8] + 0.01 * unit(rng, 1, 33)
    for block in (1 << 10, 1 << 24):
        monkeypatch.setattr(search_module, "_BLOCK_BYTES", block)
        rows, scores = exact_search(vectors, query, 4)
        assert rows[0].tolist() == twins
        assert len(set(scores[0].tolist())) == 1


def test_a_result_does_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(2)
    vectors, queries = unit(rng, 3000, 40), unit(rng, 300, 40)
    rows, scores = exact_search(vectors, queries, 5)
    for index in (0, 127, 128, 299):
        alone = exact_search(vectors, queries[index : index + 1], 5)
        np.testing.assert_array_equal(alone[0][0], rows[index])
        np.testing.assert_array_equal(alone[1][0], scores[index])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("count", [1, 40])
def test_parts_without_deleted_rows_equal_one_array(dtype: type, count: int) -> None:
    rng = np.random.default_rng(3)
    vectors, queries = unit(rng, 5000, 24).astype(dtype), unit(rng, count, 24)
    vectors[[10, 2500, 4999]] = vectors[10]
    queries[0] = vectors[10]
    deleted = np.sort(rng.choice(np.delete(np.arange(5000), [10, 2500, 4999]), 700, replace=False))
    deleted = np.union1d(deleted, np.arange(1200, 1300))
    kept = np.delete(np.arange(5000), deleted)
    for cuts in ((), (1, 2, 1250, 4000), (1200, 1300)):
        rows, scores = search_parts(np.split(vectors, cuts), queries, 7, deleted)
        expected_rows, expected_scores = exact_search(vectors[kept], queries, 7)
        np.testing.assert_array_equal(rows, kept[expected_rows])
        np.testing.assert_array_equal(scores, expected_scores)
        assert rows[0, :3].tolist() == [10, 2500, 4999]


def test_more_than_there_are_gives_what_there_is() -> None:
    vectors = unit(np.random.default_rng(4), 9, 8)
    rows, scores = search_parts(np.split(vectors, [4]), -vectors[:1], 9, np.array([0, 3, 4, 8]))
    assert sorted(rows[0].tolist()) == [1, 2, 5, 6, 7]
    assert np.isfinite(scores).all()


def test_rows_are_taken_in_the_order_asked_for() -> None:
    whole = np.arange(40).reshape(20, 2)
    rows = np.array([19, 0, 7, 7, 3, 12])
    for cuts in ((), (5,), (1, 4, 8, 12, 13)):
        np.testing.assert_array_equal(take_rows(np.split(whole, cuts), rows), whole[rows])
