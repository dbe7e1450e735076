import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegeo.errors import InputError
from edgegeo.runtime import codes


def unit(count: int, dim: int, seed: int = 0) -> np.ndarray:
    # Dimensions of very different spread, as embeddings of decoders have.
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dim)) * np.geomspace(0.02, 1, dim)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def nearest(scores: np.ndarray, k: int = 10) -> np.ndarray:
    return np.argsort(-scores, axis=1)[:, :k]


def shared(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(found, wanted, strict=True)]))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 33), st.integers(0, 1000))
def test_int8_is_within_half_a_step_or_clipped(count: int, dim: int, seed: int) -> None:
    vectors = unit(count, dim, seed)
    scales = codes.fit_scales(vectors)
    stored = codes.to_int8(vectors, scales)
    assert stored.dtype == np.int8
    assert stored.min() >= -127
    back = codes.from_int8(stored, scales)
    assert back.dtype == np.float32
    inside = np.abs(vectors) <= 127 * scales
    assert (np.abs(back - vectors)[inside] <= np.broadcast_to(scales, back.shape)[inside] * 0.5001).all()
    np.testing.assert_allclose(np.abs(back[~inside]), np.broadcast_to(127 * scales, back.shape)[~inside], rtol=1e-6)


def test_a_scale_per_dimension_keeps_neighbours_that_one_scale_loses() -> None:
    vectors = unit(800, 384)
    queries = vectors[:100] + 0.3 * unit(100, 384, 1)
    wanted = nearest(queries @ vectors.T)
    scales = codes.fit_scales(vectors)
    fitted = nearest(queries @ codes.from_int8(codes.to_int8(vectors, scales), scales).T)
    plain = nearest(queries @ np.rint(vectors * 127).T)
    assert shared(fitted, wanted) > 0.98 > shared(plain, wanted)
    np.testing.assert_array_equal(nearest((queries * scales) @ codes.to_int8(vectors, scales).T.astype(float)), fitted)


def test_an_empty_dimension_and_a_rare_one() -> None:
    vectors = np.zeros((5000, 3), np.float32)
    vectors[:, 0] = 1
    vectors[7, 2] = 0.5
    scales = codes.fit_scales(vectors)
    assert scales[1] == 1
    assert scales[2] == pytest.approx(0.5 / 127)
    np.testing.assert_allclose(codes.from_int8(codes.to_int8(vectors, scales), scales), vectors, rtol=1e-6)


def test_many_rows_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(4000, 16)
    whole = codes.fit_scales(vectors)
    monkeypatch.setattr(codes, "SAMPLE", 1000)
    np.testing.assert_allclose(codes.fit_scales(vectors), whole, rtol=0.25)
    assert (codes.fit_scales(vectors) != whole).any()


def test_bits() -> None:
    vectors = np.array([[0.5, -0.1, 0.0, 2, -1, 1, -1, 1, 0.1], [-1, 1, 1, 1, 1, 1, 1, 1, -1]], np.float32)
    bits = codes.to_binary(vectors)
    np.testing.assert_array_equal(bits, [[0b10010101, 0b10000000], [0b01111111, 0]])
    signs = codes.from_binary(bits, 9)
    np.testing.assert_allclose(signs, np.where(vectors > 0, 1, -1) / 3, rtol=1e-6)


def test_bits_rank_as_hamming_distances() -> None:
    vectors = unit(60, 24)
    bits = codes.to_binary(vectors)
    hamming = np.unpackbits(bits[:, None] ^ bits[None], axis=2).sum(axis=2)
    signs = codes.from_binary(bits, 24)
    np.testing.assert_allclose(signs @ signs.T, 1 - hamming / 12, atol=1e-6)


def test_truncated_vectors_are_unit_vectors() -> None:
    vectors = np.concatenate([unit(5, 16), np.zeros((1, 16), np.float32)])
    short = codes.truncate(vectors, 4)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), [1, 1, 1, 1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(short[0] * vectors[0, 0], vectors[0, :4] * short[0, 0], rtol=1e-5)
    for dims in (0, 17):
        with pytest.raises(InputError, match="between 1 and 16"):
            codes.truncate(vectors, dims)


def test_bad_vectors_are_named() -> None:
    with pytest.raises(InputError, match="at least one vector"):
        codes.fit_scales(np.empty((0, 4), np.float32))
    with pytest.raises(InputError, match="NaN"):
        codes.fit_scales(np.array([[np.nan, 1]], np.float32))
    for call in (codes.fit_scales, codes.to_binary, lambda v: codes.to_int8(v, np.ones(4, np.float32))):
        with pytest.raises(InputError, match="rows"):
            call(np.ones(4, np.float32))
