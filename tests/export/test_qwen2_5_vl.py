"""The Qwen2.5-VL tower as a graph against transformers' own, over grids with full and partly filled windows."""

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tiny_qwen import make_model

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.export.linear import Storage
from edgegeo.export.vision.qwen2_5_vl import build
from edgegeo.runtime.pictures.qwen2_5_vl import grid_inputs

EXACT = 2e-5
GRIDS = [(1, 1), (2, 2), (4, 4), (3, 5), (1, 9), (7, 2), (8, 6), (11, 13)]
RNG = np.random.default_rng(5)


def spec_of(model: Any) -> ImageSpec:
    vision = model.config.vision_config
    half = (0.5, 0.5, 0.5)
    merge = vision.spatial_merge_size
    return ImageSpec(
        "qwen2_5_vl", 14 * merge, 3, 1 / 255, half, half, tokens=0, patch=14, merge=merge, window=vision.window_size
    )


def session_of(model: Any, storage: Storage | None = None, dialect: str = "ort") -> ort.InferenceSession:
    parts = SimpleNamespace(vision=model.model.visual)
    graph = build(parts, model.config, spec_of(model), storage or Storage(), dialect)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])


def both(model: Any, session: ort.InferenceSession, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(ours, transformers') for random patches of a grid of tokens."""
    spec = spec_of(model)
    rows, columns = grid[0] * spec.merge, grid[1] * spec.merge
    pixels = RNG.normal(size=(rows * columns, 3 * 14 * 14)).astype(np.float32)
    (ours,) = session.run(None, {"pixel_values": pixels, **grid_inputs(*grid, spec)})
    frames = np.repeat(pixels.reshape(-1, 3, 1, 196), 2, axis=2).reshape(len(pixels), -1)
    with torch.no_grad():
        made = model.model.get_image_features(torch.from_numpy(frames), torch.tensor([[1, rows, columns]]))
    return np.asarray(ours), torch.cat(made.pooler_output).numpy()


@pytest.mark.parametrize("dialect", ["ort", "trt", "trt-modern"])
@pytest.mark.parametrize(
    "vision",
    [
        pytest.param({}, id="both-kinds-of-layer"),
        pytest.param({"window_size": 112}, id="windows-of-16-tokens"),
        pytest.param({"fullatt_block_indexes": []}, id="windows-only"),
        pytest.param({"fullatt_block_indexes": [0, 1, 2]}, id="no-windows"),
        pytest.param({"spatial_merge_size": 1, "hidden_act": "gelu"}, id="unmerged"),
        pytest.param({"rope_parameters": {"rope_type": "axial", "rope_theta": 100.0}}, id="rope"),
    ],
)
def test_one_graph_equals_transformers_on_every_grid(vision: dict[str, Any], dialect: str) -> None:
    model = make_model(vision)
    session = session_of(model, dialect=dialect)
    for grid in GRIDS:
        ours, expected = both(model, session, grid)
        assert ours.shape == (grid[0] * grid[1], 64)
        assert ours.std() > 0.1
        np.testing.assert_allclose(ours, expected, atol=EXACT, err_msg=str(grid))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning")
def test_equals_traced_graph() -> None:
    """A trace, which holds for one grid only, is a second oracle, independent of how this module reads the weights."""
    model = make_model()

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = model.model.visual

        def forward(self, frames: torch.Tensor) -> Any:
            return self.visual(frames, torch.tensor([[1, 6, 10]])).pooler_output

    pixels = RNG.normal(size=(60, 3, 1, 196)).astype(np.float32)
    frames = np.repeat(pixels, 2, axis=2).reshape(60, -1)
    file = BytesIO()
    torch.onnx.export(Tower().eval(), (torch.from_numpy(frames),), file, dynamo=False, input_names=["frames"])
    oracle = ort.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    feeds = {"pixel_values": pixels.reshape(60, -1), **grid_inputs(3, 5, spec_of(model))}
    (want,), (got,) = oracle.run(None, {"frames": frames}), session_of(model).run(None, feeds)
    np.testing.assert_allclose(got, want, atol=EXACT)


def test_windows_matter() -> None:
    """A tower that attended everywhere, or a window layer without its mask, would not pass the test above."""
    windowed, full = make_model(), make_model({"fullatt_block_indexes": [0, 1, 2]})
    _, expected = both(windowed, session_of(windowed), (3, 5))
    ours, _ = both(windowed, session_of(full), (3, 5))
    assert np.abs(ours - expected).max() > 0.01


@pytest.mark.parametrize("dialect", ["ort", "trt", "trt-modern"])
@pytest.mark.parametrize(("precision", "close"), [("fp16", 0.9999), ("int8", 0.999), ("int4", 0.9)])
def test_stored_smaller(precision: str, close: float, dialect: str) -> None:
    model = make_model()
    storage = Storage(precision, block_size=32 if dialect == "ort" else 64)
    ours, expected = both(model, session_of(model, storage, dialect), (3, 5))
    cosines = (ours * expected).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() > close
    assert np.abs(ours - expected).max() > 0


def test_calibrated_layers_include_every_matrix() -> None:
    model = make_model()
    graph = build(SimpleNamespace(vision=model.model.visual), model.config, spec_of(model), Storage())
    # patch, two of the merger, and per layer: query, key, value, out, gate, up, down.
    assert len(graph.layer_inputs) == 3 + 3 * 7


@pytest.mark.parametrize(
    ("vision", "said"),
    [
        ({"hidden_act": "relu"}, "activation 'relu'"),
        ({"patch_size": 16}, "patch, merge and window"),
        ({"window_size": 70}, "windows of 70 px"),
    ],
)
def test_unknown_towers_are_refused(vision: dict[str, Any], said: str) -> None:
    model = make_model(vision)
    with pytest.raises(CheckpointError, match=said):
        session_of(model)
