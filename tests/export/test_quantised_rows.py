"""Rows taken out of a quantised matrix say what the matrix says."""

from pathlib import Path

import numpy as np
import pytest

from edgegeo.export.graph import FLOAT, Graph
from edgegeo.export.linear import Storage, as_stored, linear
from edgegeo.runtime import open_session


@pytest.mark.parametrize(("precision", "far"), [("fp32", 1e-6), ("fp16", 1e-6), ("int8", 0.02), ("int4", 0.02)])
def test_rows_multiply_as_the_stored_matrix_does(tmp_path: Path, precision: str, far: float) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 96)).astype(np.float32)
    graph = Graph("head")
    x = graph.input("x", FLOAT, ["batch", 96])
    linear(graph, x, np.ascontiguousarray(rows.T), None, "y", Storage(precision, block_size=32))
    graph.output("y", FLOAT, ["batch", 40])
    graph.save(tmp_path / "head.onnx")
    states = rng.normal(size=(8, 96)).astype(np.float32)
    whole = open_session(tmp_path / "head.onnx", 1).run(None, {"x": states})[0]
    ours = states @ as_stored(rows, precision, 32).T
    spread = float(np.abs(whole).std())
    # What is left is the rounding of the activations.
    assert np.abs(whole - ours).mean() <= far * spread
    if precision == "int4":
        assert np.abs(whole - states @ rows.T).mean() > 2 * np.abs(whole - ours).mean()
    picked = as_stored(rows[[3, 7]], precision, 32)
    np.testing.assert_array_equal(picked, as_stored(rows, precision, 32)[[3, 7]])
