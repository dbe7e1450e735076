"""Recording through real sessions: what is summed up, and that a killed run goes on where it stopped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgegeo.calibration.observer import GRAM_COLUMNS, Observer, squares
from edgegeo.calibration.recorder import Recorder
from edgegeo.errors import InputError

WATCHED = {"part/first": "x", "part/second": "y"}


class Doubling:
    """A real onnxruntime session of y = 2 x, which can be told to break."""

    def __init__(self, folder: Path) -> None:
        onnx = pytest.importorskip("onnx")
        from edgegeo.runtime import open_session

        h = onnx.helper
        values = [h.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
        graph = h.make_graph([h.make_node("Add", ["x", "x"], ["y"])], "g", values[:1], values[1:])
        onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10), folder / "g.onnx")
        self.session = open_session(folder / "g.onnx", threads=1)
        self.runs, self.breaks_after = 0, 10**9

    def run(self, outputs: list[str], feeds: Mapping[str, Any]) -> Any:
        if self.runs == self.breaks_after:
            raise KeyboardInterrupt
        self.runs += 1
        return self.session.run(outputs, feeds)


@pytest.fixture
def session(tmp_path: Path) -> Doubling:
    return Doubling(tmp_path)


DATA = np.random.default_rng(1).normal(size=(6, 5, 4)).astype(np.float32)
FEEDS = [lambda rows=rows: [{"x": rows}] for rows in DATA]


def test_inputs_and_outputs_are_observed(session: Doubling, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "work", {"weights": "a"})
    kept = recorder.record("pass", session, WATCHED, FEEDS, ("y",), moments=True)
    np.testing.assert_array_equal(kept[2][0], 2 * DATA[2])
    first, second = recorder.observer("part/first"), recorder.observer("part/second")
    assert first.rows == second.rows == 30
    np.testing.assert_allclose(first.absmax, np.abs(DATA).max(axis=(0, 1)))
    np.testing.assert_allclose(second.square, 4 * (DATA**2).sum(axis=(0, 1)), rtol=1e-6)
    with np.load(recorder.observers["part/second"]) as arrays:
        flat = 2 * DATA.reshape(-1, 4)
        np.testing.assert_allclose(arrays["gram0"], flat.T @ flat, rtol=1e-5)


def test_several_runs_of_a_sample_are_joined(session: Doubling, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "work", {})
    both = [lambda: [{"x": DATA[0]}, {"x": DATA[1]}]]
    kept = recorder.record("pass", session, WATCHED, both, ("y",))
    np.testing.assert_array_equal(kept[0][0], 2 * DATA[:2].reshape(-1, 4))


def test_a_killed_run_goes_on_and_ends_as_if_nothing_happened(
    session: Doubling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegeo.calibration.recorder.SAVE_SECONDS", 0.0)
    whole = Recorder(tmp_path / "whole", {"weights": "a"})
    expected = whole.record("pass", session, WATCHED, FEEDS, ("y",), moments=True)
    session.runs, session.breaks_after = 0, 4
    with pytest.raises(KeyboardInterrupt):
        Recorder(tmp_path / "work", {"weights": "a"}).record("pass", session, WATCHED, FEEDS, ("y",), moments=True)
    session.runs, session.breaks_after = 0, 10**9
    again = Recorder(tmp_path / "work", {"weights": "a"})
    kept = again.record("pass", session, WATCHED, FEEDS, ("y",), moments=True)
    assert (again.resumed, session.runs) == (4, 2)
    for one, other in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    for layer in WATCHED:
        with np.load(again.observers[layer]) as mine, np.load(whole.observers[layer]) as its:
            assert sorted(mine.files) == sorted(its.files)
            for name in mine.files:
                np.testing.assert_array_equal(mine[name], its[name])


def test_what_another_model_left_is_not_gone_on_with(session: Doubling, tmp_path: Path) -> None:
    Recorder(tmp_path / "work", {"weights": "a"}).record("pass", session, WATCHED, FEEDS)
    session.runs = 0
    other = Recorder(tmp_path / "work", {"weights": "b"})
    other.record("pass", session, WATCHED, FEEDS)
    assert (other.resumed, session.runs) == (0, 6)


def test_a_kill_between_two_moves_loses_nothing(session: Doubling, tmp_path: Path) -> None:
    Recorder(tmp_path / "work", {}).record("pass", session, WATCHED, FEEDS)
    (tmp_path / "work" / "pass").rename(tmp_path / "work" / "pass.old")
    again = Recorder(tmp_path / "work", {})
    again.record("pass", session, WATCHED, FEEDS)
    assert again.resumed == 6


def test_no_samples(session: Doubling, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one sample"):
        Recorder(tmp_path / "work", {}).record("pass", session, WATCHED, [])


def test_wide_tensors_keep_squares_along_the_diagonal() -> None:
    assert squares(192) == [(0, 192)]
    spans = squares(11_008)
    assert [a for a, _ in spans[1:]] == [b for _, b in spans[:-1]]
    assert spans[-1][1] == 11_008
    assert all(b - a <= GRAM_COLUMNS and a % 256 == 0 for a, b in spans)
    one = Observer(moments=True)
    one.see(np.ones((2, 1536), np.float32))
    assert [gram.shape for gram in one.grams or []] == [(768, 768), (768, 768)]
