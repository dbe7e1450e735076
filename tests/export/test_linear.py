"""Every way a matrix is stored, in both dialects: onnxruntime's result against the float product."""

import itertools
import tracemalloc
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgegeo.export.graph import FLOAT, Graph
from edgegeo.export.linear import Storage, linear, to_half
from edgegeo.export.rounding import quantise_blocks, quantise_columns, quantise_grid

RNG = np.random.default_rng(11)


def built(weight: Any, bias: Any, storage: Storage, dialect: str) -> Any:
    graph = Graph("one", dialect)
    x = graph.input("x", FLOAT, ["batch", "rows", weight.shape[0]])
    linear(graph, x, weight, bias, "y", storage)
    graph.output("y", FLOAT, ["batch", "rows", weight.shape[1]])
    return graph.model()


def answer(model: Any, x: Any) -> Any:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


CASES = [
    ("fp32", {}, 1e-6),
    ("fp16", {}, 2e-3),
    ("int8", {}, 0.02),
    ("int8", {"ranges": {"y": (-4.0, 4.5)}}, 0.03),
    ("int4", {"block_size": 64}, 0.16),
    ("int4", {"block_size": 128}, 0.18),
    ("int8", {"layers": {"y": "fp32"}}, 1e-6),
]


@pytest.mark.parametrize("dialect", ["ort", "trt"])
@pytest.mark.parametrize(("precision", "more", "tolerance"), CASES)
@pytest.mark.parametrize("biased", [True, False])
def test_product_is_close_to_float(dialect: str, precision: str, more: Any, tolerance: float, biased: bool) -> None:
    """tolerance: largest error relative to the norm of the result."""
    weight = RNG.normal(size=(128, 24)).astype(np.float32)
    bias = RNG.normal(size=24).astype(np.float32) if biased else None
    x = RNG.normal(size=(2, 5, 128)).astype(np.float32)
    expected = x @ weight + (0 if bias is None else bias)
    for value in (weight, np.asfortranarray(weight)):
        got = answer(built(value, bias, Storage(precision, **more), dialect), x)
        assert np.linalg.norm(got - expected) < tolerance * np.linalg.norm(expected)


def test_trt_dialect_is_explicit_and_symmetric() -> None:
    model = built(np.eye(64, 8, dtype=np.float32), None, Storage("int8", ranges={"y": (-1.0, 3.0)}), "trt")
    assert [n.op_type for n in model.graph.node] == [
        "Cast", "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul", "Cast"
    ]  # fmt: skip
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    assert weights["y.input_zero_point"] == 0
    assert weights["y.input_zero_point"].dtype == np.int8
    assert weights["y.input_scale"] == np.float16(3.0 / 127)
    assert {weights[f"y.{part}_scale"].dtype for part in ("input", "weight")} == {np.dtype(np.float16)}
    assert weights["y.weight_int8"].dtype == np.int8
    assert [o.version for o in model.opset_import] == [20]
    assert next(n for n in model.graph.node if n.output[0] == "y.weight").attribute[0].i == 1


def test_trt_int4_is_opset_21_and_needs_blocks_it_can_multiply() -> None:
    weight = RNG.normal(size=(128, 8)).astype(np.float32)
    model = built(weight, None, Storage("int4", block_size=64), "trt")
    assert [o.version for o in model.opset_import] == [21]
    assert [n.op_type for n in model.graph.node] == ["Cast", "DequantizeLinear", "MatMul", "Cast"]
    assert len(model.graph.node[1].input) == 2  # no zero point
    with pytest.raises(ValueError, match="64 or 128, not 32"):
        built(weight, None, Storage("int4", block_size=32), "trt")
    for shape in ((128, 9), (100, 8)):  # TensorRT would not keep these at 4 bits
        odd = built(np.ones(shape, np.float32), None, Storage("int4", block_size=64), "trt")
        assert "y.weight_int8" in {w.name for w in odd.graph.initializer}


def test_columns_of_zeros_and_extremes() -> None:
    weight = np.zeros((4, 3), np.float32)
    weight[:, 1] = [1.27, -1.27, 0.005, 0.02]
    codes, scale = quantise_columns(weight)
    assert codes[:, 1].tolist() == [127, -127, 0, 2]
    assert scale.tolist() == [1.0, np.float32(1.27) / np.float32(127), 1.0]


def unpack(codes: Any, scales: Any, k: int) -> Any:
    """MatMulNBits' layout back to (K, N)."""
    both = np.stack([codes & 15, codes >> 4], -1).astype(np.float32) - 8
    cells = both.reshape(*codes.shape[:2], -1) * scales[..., None]
    return cells.reshape(len(codes), -1)[:, :k].T


@pytest.mark.parametrize(("k", "n", "block"), [(128, 10, 32), (100, 6, 32), (16, 2, 16), (64, 3000, 64)])
def test_blocks_choose_the_best_scale_tried(k: int, n: int, block: int) -> None:
    """Against the definition, one block after the other."""
    weight = RNG.normal(size=(k, n)).astype(np.float32)
    weight[:, 0] = 0
    codes, scales, _ = quantise_blocks(weight, block)
    got = unpack(codes, scales, k)
    for column, start in itertools.islice(itertools.product(range(n), range(0, k, block)), 40):
        cell = weight[start : start + block, column]
        peak = cell[np.abs(cell).argmax()] or -8.0
        trials = [peak * s / -8 for s in np.arange(1.0, 0.74, -0.02)]
        best = min(float(((np.clip(np.rint(cell / t), -8, 7) * t - cell) ** 2).sum()) for t in trials)
        found = float(((got[start : start + block, column] - cell) ** 2).sum())
        assert found <= best * 1.0001 + 1e-9


def test_four_bits_for_tensorrt_have_positive_scales_and_lose_little_more() -> None:
    weight = RNG.normal(size=(128, 6)).astype(np.float32)
    weight[:, 0], weight[:64, 1], weight[64:, 1] = 0, np.abs(weight[:64, 1]), -np.abs(weight[64:, 1])
    packed, scales = quantise_grid(weight, 64)
    assert scales.min() > 0
    signed = np.stack([packed & 15, packed >> 4], -1).reshape(128, 6).astype(np.int8)
    signed[signed > 7] -= 16
    lost = np.linalg.norm(signed * np.repeat(scales, 64, axis=0) - weight)
    assert lost < 1.1 * np.linalg.norm(unpack(*quantise_blocks(weight, 64)[:2], 128) - weight)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_faint_weights_survive_scales_in_float16(precision: str) -> None:
    """A scale that rounds to 0 is refused by TensorRT, and one that is raised must not raise the weights."""
    weight = RNG.normal(size=(64, 8)).astype(np.float32)
    for column, peak in enumerate((0.0, 1e-9, 1e-6, 1e-5, 1e-4, 1e-3)):
        weight[:, column] = peak * np.sign(weight[:, column])
    ranges = {"y": (-1e-9, 1e-9)} if precision == "int8" else {}
    model = built(weight, None, Storage(precision, block_size=64, ranges=ranges), "trt")
    weights = {w.name: w for w in model.graph.initializer}
    assert numpy_helper.to_array(weights["y.weight_scale"]).min() >= np.float16(2.0**-20)
    assert not ranges or numpy_helper.to_array(weights["y.input_scale"]) >= np.float16(2.0**-20)
    exact = built(weight, None, Storage(precision, block_size=64), "trt")
    got, wanted = answer(exact, np.eye(64, dtype=np.float32)[None])[0], weight
    np.testing.assert_allclose(got[:, :6], wanted[:, :6], atol=5e-7, rtol=0.03)


def test_quantising_needs_little_more_than_its_result() -> None:
    weight = RNG.normal(size=(20_000, 256)).astype(np.float32).T  # 20 MB
    for work in (quantise_columns, lambda w: quantise_blocks(w, 32), lambda w: quantise_grid(w, 64)):
        tracemalloc.start()
        result = work(weight)
        peak = tracemalloc.get_traced_memory()[1] - sum(a.nbytes for a in result if a is not None)
        tracemalloc.stop()
        assert peak < weight.nbytes / 2


def test_values_beyond_half_precision_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond float16"):
        to_half(np.array([[1.0, -70_000.0]], np.float32), "layer")
    with pytest.raises(ValueError, match="beyond float16"):
        to_half(np.array([[np.nan]], np.float32), "layer")


def test_matrices_over_one_input_share_its_quantised_form() -> None:
    """One range and one rounding for both, and each says what it says alone."""
    weights = [RNG.normal(size=(128, 24)).astype(np.float32) for _ in range(2)]
    graph = Graph("two", "ort")
    x = graph.input("x", FLOAT, ["batch", "rows", 128])
    for name, weight in zip("ab", weights, strict=True):
        linear(graph, x, weight, None, name, Storage("int8"))
        graph.output(name, FLOAT, ["batch", "rows", 24])
    model = graph.model()
    assert [node.op_type for node in model.graph.node].count("DynamicQuantizeLinear") == 1
    given = RNG.normal(size=(2, 5, 128)).astype(np.float32)
    both = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": given})
    for weight, found in zip(weights, both, strict=True):
        assert np.array_equal(found, answer(built(weight, None, Storage("int8"), "ort"), given))
