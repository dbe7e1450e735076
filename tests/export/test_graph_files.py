"""Where the weights of a graph go: in the graph, beside it, and straight to disk while it is built."""

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgegeo.export.graph import EXTERNAL_DATA_FROM_BYTES, FLOAT, INT4, Graph, weights_to

RNG = np.random.default_rng(5)


def chain(sizes: list[int], dialect: str = "ort", layout: str = "C") -> Graph:
    """x (B, sizes[0]) through matrices sizes[i] x sizes[i + 1]."""
    rng = np.random.default_rng(0)
    graph = Graph("chain", dialect)
    x = graph.input("x", FLOAT, ["batch", sizes[0]])
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        value = rng.normal(0, 0.1, (a, b)).astype(np.float32)
        matrix = graph.weight(f"w{i}", np.asarray(value, order=layout))  # type: ignore[call-overload]
        x = graph.node("MatMul", [x, matrix], f"y{i}" if i < len(sizes) - 2 else "y")
    graph.output("y", FLOAT, ["batch", sizes[-1]])
    return graph


def run(file: Path, x: Any) -> Any:
    return ort.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def digest(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


def test_small_graphs_are_one_file(tmp_path: Path) -> None:
    with weights_to(tmp_path / "small.onnx"):
        graph = chain([16, 300, 8])
    graph.save(tmp_path / "small.onnx")
    assert [f.name for f in tmp_path.iterdir()] == ["small.onnx"]
    x = RNG.normal(size=(2, 16)).astype(np.float32)
    expected = ort.InferenceSession(chain([16, 300, 8]).model().SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(run(tmp_path / "small.onnx", x), expected)


@pytest.mark.parametrize("layout", ["C", "F"])
def test_weights_written_while_building_equal_those_written_at_the_end(tmp_path: Path, layout: str) -> None:
    """Same bytes both ways, a few of them waiting below the threshold, whatever the memory layout."""
    sizes = [64, 100, 600, 500, 7]
    (tmp_path / "now").mkdir()
    (tmp_path / "later").mkdir()
    with weights_to(tmp_path / "now" / "a.onnx"):
        graph = chain(sizes, layout=layout)
        written = (tmp_path / "now" / "a.onnx_data").stat().st_size
    assert written > EXTERNAL_DATA_FROM_BYTES
    assert not graph._waiting
    graph.save(tmp_path / "now" / "a.onnx")
    chain(sizes).save(tmp_path / "later" / "a.onnx")
    assert digest(tmp_path / "now") == digest(tmp_path / "later")
    x = RNG.normal(size=(3, 64)).astype(np.float32)
    expected = ort.InferenceSession(chain(sizes).model().SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(run(tmp_path / "now" / "a.onnx", x), expected)


def test_large_weights_start_on_a_page(tmp_path: Path) -> None:
    chain([64, 100, 600, 500, 7]).save(tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    for proto in model.graph.initializer:
        entries = {e.key: e.value for e in proto.external_data}
        assert entries["location"] == "a.onnx_data"
        assert int(entries["offset"]) % (4096 if int(entries["length"]) >= 1 << 20 else 64) == 0
    onnx.checker.check_model(str(tmp_path / "a.onnx"))


def test_a_streamed_graph_is_saved_where_it_was_begun(tmp_path: Path) -> None:
    with weights_to(tmp_path / "a.onnx"):
        graph = chain([600, 600, 4])
    with pytest.raises(ValueError, match=r"begun for .*a\.onnx"):
        graph.save(tmp_path / "b.onnx")
    with pytest.raises(ValueError, match="use save"):
        graph.model()


def test_a_second_build_replaces_the_data_of_the_first(tmp_path: Path) -> None:
    for sizes in ([600, 900, 4], [600, 600, 4]):
        with weights_to(tmp_path / "a.onnx"):
            chain(sizes).save(tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx_data").stat().st_size < 600 * 900 * 4
    assert run(tmp_path / "a.onnx", np.ones((1, 600), np.float32)).shape == (1, 4)


def test_dialects_name_their_opset_and_refuse_foreign_operators() -> None:
    assert [(o.domain, o.version) for o in chain([4, 4]).model().opset_import] == [("", 21), ("com.microsoft", 1)]
    standard = chain([4, 4], "trt")
    assert [(o.domain, o.version) for o in standard.model().opset_import] == [("", 20)]
    standard.weight_int4("w4", np.zeros((4, 2), np.uint8), (4, 4))
    model = standard.model()
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 21)]
    assert model.graph.initializer[-1].data_type == INT4
    with pytest.raises(ValueError, match="not an operator of the trt dialect"):
        standard.node("FastGelu", ["y"], "z", "com.microsoft")
    with pytest.raises(ValueError, match="unknown dialect"):
        Graph("x", "openvino")


def test_scalars_stay_scalars() -> None:
    graph = chain([4, 4])
    graph.weight("one", np.array(1.0, np.float32))
    assert list(graph.model().graph.initializer[-1].dims) == []
