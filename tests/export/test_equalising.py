"""Equalisation leaves what a graph computes alone, and its 8-bit form closer to it where channels have outliers."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tiny_decoders import KINDS, Runner, make_decoder

from edgegeo.calibration.statistics import LayerRecord
from edgegeo.export.blocks import layer_norm
from edgegeo.export.equalising import LARGEST, equalised_ranges, equalising
from edgegeo.export.graph import FLOAT, Graph, divided_by
from edgegeo.export.linear import Storage, linear
from edgegeo.export.trunk import build_trunk

RNG = np.random.default_rng(3)


class Seen:
    """Statistics of one layer."""

    def __init__(self, tensor: str, channels: int) -> None:
        self.record = LayerRecord(tensor, 10, -1.0, 1.0, {"mse": (-1.0, 1.0)})
        self.absmax = np.exp(RNG.normal(size=channels) * 2).astype(np.float32)


class Statistics(dict[str, Any]):
    """A component's layers."""

    def ranges(self, method: str) -> dict[str, tuple[float, ...]]:
        return {name: one.record.ranges[method] for name, one in self.items()}


def test_factors_follow_the_outliers_and_stay_within_reason() -> None:
    seen: Any = Statistics(qkv=Seen("layers.0.input_norm", 16), o=Seen("layers.0.attended", 16))
    seen["qkv"].absmax[3] = 1e9
    factors = equalising(seen, 0.5, gated=True)
    assert list(factors) == ["layers.0.input_norm"]
    assert factors["layers.0.input_norm"][3] == LARGEST
    assert equalising(seen, 0.0, gated=True) == {}
    low, high = equalised_ranges(seen, "mse", factors)["qkv"]
    reach = float((seen["qkv"].absmax / factors["layers.0.input_norm"]).max())
    assert (low, high) == (-reach, reach)
    assert equalised_ranges(seen, "mse", factors)["o"] == (-1.0, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_computes_the_same(kind: str) -> None:
    decoder = make_decoder(kind)
    plain = build_trunk(decoder, Storage())
    widths = {layer: 96 if layer.endswith("down") else 64 for layer in plain.layer_inputs}
    seen: Any = Statistics({layer: Seen(tensor, widths[layer]) for layer, tensor in plain.layer_inputs.items()})
    factors = equalising(seen, 0.7, gated=True)
    assert {"layers.0.input_norm", "layers.1.mlp_norm", "layers.2.gated", "layers.2.up"} <= set(factors)
    with divided_by(factors):
        equalised = build_trunk(decoder, Storage(factors=factors))
    rows = RNG.normal(size=(1, 9, 64)).astype(np.float32)
    mask = np.ones((1, 9), np.int64)
    a, b = (Runner(graph).run(rows, mask)[0] for graph in (plain, equalised))
    np.testing.assert_allclose(a, b, atol=2e-4 * np.abs(a).max())
    assert not np.array_equal(a, b)


def test_a_factor_that_nothing_divides_by_is_an_error(tmp_path: Any) -> None:
    with divided_by({"nowhere.norm": np.ones(4, np.float32)}):
        graph = Graph("empty")
    with pytest.raises(ValueError, match=r"nothing .* divides nowhere\.norm"):
        graph.save(tmp_path / "g.onnx")


def test_eight_bits_lose_less_where_a_few_channels_are_large() -> None:
    """SmoothQuant's case: one range for all channels of a norm that has outliers."""
    gamma, weight = np.ones(64, np.float32), RNG.normal(size=(64, 32)).astype(np.float32)
    gamma[[3, 40]] = 60.0
    rows = RNG.normal(size=(50, 64)).astype(np.float32)

    def run(storage: Storage) -> np.ndarray:
        with divided_by(storage.factors):
            graph = Graph("one")
            x = graph.input("x", FLOAT, ["n", 64])
            linear(graph, layer_norm(graph, x, gamma, None, "a.norm", 1e-5), weight, None, "y", storage)
            graph.output("y", FLOAT, ["n", 32])
        session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"x": rows})[0])

    exact = run(Storage())
    seen = Seen("a.norm", 64)
    seen.absmax = np.abs((rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True) * gamma).max(axis=0)
    statistics: Any = Statistics(y=seen)
    factors = equalising(statistics, 0.5, gated=False)
    plain, smooth = (np.linalg.norm(run(Storage("int8", factors=f)) - exact) for f in ({}, factors))
    assert smooth < 0.5 * plain
