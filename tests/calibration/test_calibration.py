"""Sample manifests and activation ranges."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgegeo.calibration import check_samples, describe_samples, read_manifest, record_ranges, write_manifest
from edgegeo.calibration.ranges import clip
from edgegeo.errors import InputError


@dataclass(frozen=True)
class Sample:
    id: str
    text: str
    photo: bytes
    tile: bytes


SAMPLES = [Sample("a", "a field", b"1", b"2"), Sample("b", "a river", b"3", b"4")]


def test_manifest_survives_the_disk(tmp_path: Path) -> None:
    manifest = describe_samples(SAMPLES, "validation", 7)
    write_manifest(manifest, tmp_path / "m.json")
    assert read_manifest(tmp_path / "m.json") == manifest
    check_samples(manifest, SAMPLES)


def test_altered_sample_is_named() -> None:
    manifest = describe_samples(SAMPLES, "validation", 7)
    with pytest.raises(InputError, match=r"1 of 2 .* first is b"):
        check_samples(manifest, [SAMPLES[0], Sample("b", "a river", b"3", b"5")])


def test_bytes_that_move_between_fields_change_the_hash() -> None:
    one, two = Sample("a", "", b"12", b"3"), Sample("a", "", b"1", b"23")
    assert describe_samples([one], "test", 0).sha256 != describe_samples([two], "test", 0).sha256


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": 1}'])
def test_damaged_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match=r"m\.json"):
        read_manifest(tmp_path / "m.json")


def test_missing_manifest_and_no_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_manifest(tmp_path / "none.json")
    with pytest.raises(InputError, match="at least one sample"):
        describe_samples([], "validation", 0)


def quantised_error(values: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255
    zero = round(-low / step)
    codes = np.clip(np.rint(values / step) + zero, 0, 255)
    return float((((codes - zero) * step - values) ** 2).mean())


def test_one_outlier_is_clipped_and_that_lowers_the_error() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 100_000), [9.0]])
    counts = np.histogram(values, 2048, (values.min(), values.max()))[0]
    low, high = clip(counts, values.min(), values.max())
    assert high < 8
    assert quantised_error(values, low, high) < quantised_error(values, values.min(), values.max())


def test_uniform_values_are_not_clipped() -> None:
    counts = np.full(2048, 100)
    assert clip(counts, -1.0, 1.0) == (-1.0, 1.0)
    assert clip(counts, 0.0, 0.0) == (0.0, 0.0)


def test_ranges_are_recorded_layer_by_layer(tmp_path: Path) -> None:
    """A real session: y = 2x, so the second layer's input spans twice the first's."""
    onnx = pytest.importorskip("onnx")
    from edgegeo.runtime import open_session

    h = onnx.helper
    nodes = [h.make_node("Add", ["x", "x"], ["y"])]
    values = [h.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n"]) for n in ("x", "y")]
    graph = h.make_graph(
        [*nodes, h.make_node("Identity", ["x"], ["x_out"])], "g", values[:1],
        [values[1], h.make_tensor_value_info("x_out", onnx.TensorProto.FLOAT, ["n"])],
    )  # fmt: skip
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10), tmp_path / "g.onnx")
    session = open_session(tmp_path / "g.onnx", threads=1)
    data = np.linspace(-1, 3, 1000, dtype=np.float32)
    ranges = record_ranges(session, {"first": "x_out", "second": "y"}, lambda: [{"x": data[:500]}, {"x": data[500:]}])
    assert ranges["first"] == pytest.approx((-1, 3), abs=0.15)
    assert ranges["second"] == pytest.approx((-2, 6), abs=0.3)
    with pytest.raises(InputError, match="at least one sample"):
        record_ranges(session, {"first": "x_out"}, list)
