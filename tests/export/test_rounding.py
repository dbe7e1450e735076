"""GPTQ, HQQ and rounding to nearest: packing, sizes, and which of them keeps a matrix's products best."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgegeo.errors import InputError
from edgegeo.export.graph import FLOAT, Graph
from edgegeo.export.linear import BITS, Storage, linear
from edgegeo.export.rounding import Rounder, narrowed_codes, quantise_blocks, quantise_grid, unpacked, widening_tables

K, N = 192, 48
RNG = np.random.default_rng(0)
MIXED = RNG.normal(size=(K, K)) * np.exp(RNG.normal(size=K))[:, None] / 8
"""Makes channels of very different size that move together, as those of a trained model do."""
WEIGHT = (RNG.normal(size=(K, N)) * 0.1).astype(np.float32)


class Seen:
    """Statistics as a calibration file gives them."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.square = (rows**2).mean(axis=0)

    def grams(self) -> list[np.ndarray]:
        return [self.rows.T @ self.rows / np.float32(len(self.rows))]


def activations(count: int) -> np.ndarray:
    return (RNG.normal(size=(count, K)) @ MIXED).astype(np.float32)


def lost(stored: np.ndarray, rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows @ stored - rows @ WEIGHT) / np.linalg.norm(rows @ WEIGHT))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_halves_the_error_on_other_rows_at_the_same_size(bits: int) -> None:
    plain = quantise_blocks(WEIGHT, 32, None, bits)
    turned = quantise_blocks(WEIGHT, 32, Rounder("gptq", Seen(activations(2000))), bits)  # type: ignore[arg-type]
    assert [a.shape for a in plain[:2]] == [a.shape for a in turned[:2]]
    held = activations(300)
    assert lost(unpacked(turned, K, bits), held) < 0.6 * lost(unpacked(plain, K, bits), held)


def test_gptq_of_what_was_never_seen_is_rounding_to_nearest() -> None:
    blind = quantise_blocks(WEIGHT, 32, Rounder("gptq", Seen(np.zeros((4, K), np.float32))))  # type: ignore[arg-type]
    plain = quantise_blocks(WEIGHT, 32)
    np.testing.assert_array_equal(blind.codes, plain.codes)
    np.testing.assert_array_equal(blind.scales, plain.scales)


def test_gptq_over_several_squares_and_a_short_last_block() -> None:
    rows = activations(500)[:, :176]
    seen = Seen(rows)
    halves = [seen.grams()[0][:96, :96], seen.grams()[0][96:, 96:]]
    seen.grams = lambda: halves  # type: ignore[method-assign]
    weight = WEIGHT[:176]
    packed = quantise_blocks(weight, 32, Rounder("gptq", seen))  # type: ignore[arg-type]
    assert packed.codes.shape == (N, 6, 16)
    plain = unpacked(quantise_blocks(weight, 32), 176)
    error = [np.linalg.norm(rows @ (one - weight)) for one in (unpacked(packed, 176), plain)]
    assert error[0] < 0.8 * error[1]


def test_equalised_activations_are_what_gptq_looks_at() -> None:
    """Rows multiplied by a factor, activations divided by it: the same products, so about the same error."""
    factor = np.exp(RNG.normal(size=K)).astype(np.float32)
    seen: Any = Seen(activations(2000))
    packed = quantise_blocks(WEIGHT * factor[:, None], 32, Rounder("gptq", seen, factor))
    held = activations(300)
    plain = unpacked(quantise_blocks(WEIGHT * factor[:, None], 32), K) / factor[:, None]
    assert lost(unpacked(packed, K) / factor[:, None], held) < 0.7 * lost(plain, held)


def test_hqq_has_zero_points_of_four_bits_and_less_error() -> None:
    pytest.importorskip("torch")
    skewed = (WEIGHT + 0.08).astype(np.float32)
    packed = quantise_blocks(skewed, 32, Rounder("hqq"))
    assert packed.zeros is not None
    assert packed.zeros.shape == (N, 3)
    error = [np.linalg.norm(unpacked(one, K) - skewed) for one in (packed, quantise_blocks(skewed, 32))]
    assert error[0] < 0.9 * error[1]


def test_what_is_unpacked_is_what_onnxruntime_multiplies() -> None:
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    rows = activations(7)
    bias = RNG.normal(size=N).astype(np.float32)
    seen: Any = {"layer": Seen(activations(300))}
    for precision, rounding in (
        ("int4", "gptq"), ("int4", "hqq"), ("int8-blocks", "nearest"), ("int8-blocks", "hqq"), ("int3", "nearest"),
        ("int3", "hqq"), ("int2", "gptq"), ("int2", "hqq"),
    ):  # fmt: skip
        graph = Graph("one")
        x = graph.input("x", FLOAT, ["n", K])
        storage = Storage(precision, 32, 1, rounding=rounding, statistics=seen)
        linear(graph, x, WEIGHT, bias, "layer", storage)
        graph.output("layer", FLOAT, ["n", N])
        session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
        bits = BITS[precision]
        expected = rows @ unpacked(quantise_blocks(WEIGHT, 32, storage.rounder("layer", "x"), bits), K, bits) + bias
        np.testing.assert_allclose(session.run(None, {"x": rows})[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("bits", "bound"), [(2, 0.40), (3, 0.20)])
def test_codes_below_four_bits_take_their_bits_and_come_back(bits: int, bound: float) -> None:
    packed = quantise_blocks(WEIGHT, 64, None, bits)
    planes = narrowed_codes(packed.codes, bits)
    assert sum(plane.nbytes for plane in planes) == WEIGHT.size * bits // 8
    found = np.zeros_like(packed.codes)
    for plane, table in zip(planes, widening_tables(bits), strict=True):
        found |= table[plane].reshape(found.shape)
    np.testing.assert_array_equal(found, packed.codes)
    stored = unpacked(packed, K, bits)
    assert len(np.unique(packed.codes & 15)) == 2**bits
    assert np.linalg.norm(stored - WEIGHT) < bound * np.linalg.norm(WEIGHT)


def test_codes_below_four_bits_are_widened_when_the_session_opens(tmp_path: Path) -> None:
    """Not at every call: what onnxruntime keeps is one MatMulNBits on constants, as of four bits."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    graph = Graph("two")
    x = graph.input("x", FLOAT, ["n", K])
    for name, precision in (("first", "int3"), ("second", "int2")):
        linear(graph, x, WEIGHT, None, name, Storage(precision, 64))
        graph.output(name, FLOAT, ["n", N])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "kept.onnx")
    ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [node.op_type for node in onnx.load(tmp_path / "kept.onnx").graph.node] == ["MatMulNBits"] * 2


@pytest.mark.parametrize(("precision", "least"), [("nf4", 0.99), ("bf16", 0.9999)])
def test_nf4_and_bf16_compute_nearly_the_same(precision: str, least: float) -> None:
    ort = pytest.importorskip("onnxruntime")
    graph = Graph("one")
    x = graph.input("x", FLOAT, ["n", K])
    bias = RNG.normal(size=N).astype(np.float32)
    linear(graph, x, WEIGHT, bias, "layer", Storage(precision, 64))
    graph.output("layer", FLOAT, ["n", N])
    assert graph.weight_bytes < (0.6 if precision == "nf4" else 2.1) * WEIGHT.size + 1000
    session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    rows = activations(20)
    got, wanted = session.run(None, {"x": rows})[0] - bias, rows @ WEIGHT
    assert least < float((got * wanted).sum() / np.linalg.norm(got) / np.linalg.norm(wanted)) < 1.0


def test_methods_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="without recorded activations"):
        quantise_blocks(WEIGHT, 32, Rounder("gptq"))
    short: Any = Seen(np.zeros((4, K - 1), np.float32))
    with pytest.raises(InputError, match="no moments"):
        quantise_blocks(WEIGHT, 32, Rounder("gptq", short))
    with pytest.raises(ValueError, match="zero points"):
        quantise_grid(WEIGHT, 64, Rounder("hqq"))
