"""Every block in every dialect against torch, and the trt dialect's promise of standard operators."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch.nn import functional
from transformers.activations import ACT2FN

from edgegeo.export import blocks
from edgegeo.export.graph import FLOAT, Graph

DIALECTS = pytest.mark.parametrize("dialect", ["ort", "trt", "trt-modern"])
RNG = np.random.default_rng(5)
EXACT = 2e-6


def run(dialect: str, feeds: dict[str, np.ndarray], emit: Callable[[Graph], Any]) -> list[np.ndarray]:
    """Run a graph of one block; `emit` returns the names of its outputs."""
    graph = Graph("block", dialect)
    for name, value in feeds.items():
        graph.input(name, FLOAT, [f"{name}_{i}" for i in range(value.ndim)])
    outputs = emit(graph)
    outputs = [outputs] if isinstance(outputs, str) else list(outputs)
    rank = next(iter(feeds.values())).ndim
    for name in outputs:
        graph.output(name, FLOAT, [f"{name}_{i}" for i in range(rank)])
    model = graph.model()
    if dialect != "ort":
        assert {node.domain for node in model.graph.node} == {""}
        assert not {node.op_type for node in model.graph.node} & {"SimplifiedLayerNormalization"}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(outputs, feeds))


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(0, 2, shape).astype(np.float32)


@DIALECTS
@pytest.mark.parametrize("biased", [True, False])
def test_layer_norm(dialect: str, biased: bool) -> None:
    x, skip, gamma, beta = noise(2, 3, 32), noise(2, 3, 32), noise(32), noise(32) if biased else None
    torch_beta = None if beta is None else torch.from_numpy(beta)

    def expected(value: np.ndarray) -> np.ndarray:
        return functional.layer_norm(torch.from_numpy(value), (32,), torch.from_numpy(gamma), torch_beta, 1e-5).numpy()

    got = run(dialect, {"x": x}, lambda g: blocks.layer_norm(g, "x", gamma, beta, "y", 1e-5))
    np.testing.assert_allclose(got[0], expected(x), atol=EXACT)
    feeds = {"x": x, "skip": skip}
    normed, total = run(dialect, feeds, lambda g: blocks.skip_layer_norm(g, "x", "skip", gamma, beta, "y", 1e-5))
    np.testing.assert_array_equal(total, x + skip)
    np.testing.assert_allclose(normed, expected(x + skip), atol=EXACT)


@DIALECTS
def test_rms_norm(dialect: str) -> None:
    x, skip, gamma = 1e-3 * noise(2, 3, 32), 1e-3 * noise(2, 3, 32), noise(32)  # small, so that epsilon shows

    def expected(value: np.ndarray) -> np.ndarray:
        return functional.rms_norm(torch.from_numpy(value), (32,), torch.from_numpy(gamma), 1e-6).numpy()

    got = run(dialect, {"x": x}, lambda g: blocks.rms_norm(g, "x", gamma, "y", 1e-6))
    np.testing.assert_allclose(got[0], expected(x), atol=EXACT)
    feeds = {"x": x, "skip": skip}
    normed, total = run(dialect, feeds, lambda g: blocks.skip_rms_norm(g, "x", "skip", gamma, "y", 1e-6))
    np.testing.assert_array_equal(total, x + skip)
    np.testing.assert_allclose(normed, expected(x + skip), atol=EXACT)


@DIALECTS
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_first_norm_adds_nothing(dialect: str, norm: str) -> None:
    x, gamma = noise(1, 2, 16), noise(16)

    def emit(graph: Graph) -> str:
        if norm == "rms":
            name, total = blocks.skip_rms_norm(graph, "", "x", gamma, "y", 1e-6)
        else:
            name, total = blocks.skip_layer_norm(graph, "", "x", gamma, None, "y", 1e-6)
        assert total == "x"
        return name

    one = run(dialect, {"x": x}, emit)[0]
    assert one.shape == x.shape


@DIALECTS
@pytest.mark.parametrize("name", sorted(blocks.ACTIVATIONS))
def test_activations_by_their_names_in_transformers(dialect: str, name: str) -> None:
    x = np.linspace(-12, 12, 4096, dtype=np.float32)[None]
    got = run(dialect, {"x": x}, lambda g: blocks.activation(g, "x", "y", blocks.ACTIVATIONS[name]))[0]
    np.testing.assert_allclose(got, ACT2FN[name](torch.from_numpy(x)).numpy(), atol=EXACT)


def test_unknown_gelu_is_refused() -> None:
    with pytest.raises(ValueError, match="'exact'"):
        blocks.gelu(Graph("block"), "x", "y", "exact")


@DIALECTS
@pytest.mark.parametrize("rows", [(), (1, 1), (2, 1), (1, 4), (2, 4)])
def test_full_attention(dialect: str, rows: tuple[int, ...]) -> None:
    """rows: no bias, or the first two sizes of one."""
    feeds = {name: noise(2, 9, 4 * 8) for name in ("query", "key", "value")}
    bias = None
    if rows:
        feeds["bias"] = np.where(RNG.random((*rows, 9, 9)) < 0.3, -1e9, noise(*rows, 9, 9)).astype(np.float32)
        bias = torch.from_numpy(feeds["bias"])
    parts = [torch.from_numpy(feeds[n]).view(2, 9, 4, 8).transpose(1, 2) for n in ("query", "key", "value")]
    expected = functional.scaled_dot_product_attention(*parts, attn_mask=bias, scale=0.3).transpose(1, 2)
    names: Any = ("query", "key", "value", "y", 4, 8, 0.3, "bias" if rows else "")
    got = run(dialect, feeds, lambda g: blocks.full_attention(g, *names))[0]
    np.testing.assert_allclose(got, expected.reshape(2, 9, 32).numpy(), atol=5e-6)


@DIALECTS
def test_full_attention_across_lengths(dialect: str) -> None:
    feeds = {"query": noise(1, 3, 16), "key": noise(1, 7, 16), "value": noise(1, 7, 16)}
    parts = [torch.from_numpy(v).view(1, -1, 2, 8).transpose(1, 2) for v in feeds.values()]
    expected = functional.scaled_dot_product_attention(*parts, scale=0.5).transpose(1, 2).reshape(1, 3, 16)
    got = run(dialect, feeds, lambda g: blocks.full_attention(g, "query", "key", "value", "y", 2, 8, 0.5))[0]
    np.testing.assert_allclose(got, expected.numpy(), atol=5e-6)
