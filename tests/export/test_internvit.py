"""The InternViT graph against transformers' get_image_features, on tiny towers with random weights."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tiny_internvl import make_model

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.export.graph import Graph
from edgegeo.export.linear import Storage
from edgegeo.export.vision.internvit import build

EXACT = 2e-5
RNG = np.random.default_rng(5)
SQUARE = {"image_size": [32, 32], "patch_size": [8, 8]}


def graph_of(model: Any, size: int = 32, storage: Storage | None = None, dialect: str = "ort") -> Graph:
    spec = ImageSpec("internvl", size, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3, (size // 16) ** 2)
    parts = SimpleNamespace(vision=model.model.vision_tower, connector=model.model.multi_modal_projector)
    return build(parts, model.config, spec, storage or Storage(), dialect)


def run(graph: Graph, pixels: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"pixel_values": pixels})
    return np.asarray(out)


def expected(model: Any, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model.model.get_image_features(torch.from_numpy(pixels)).pooler_output.numpy())


def tiles(count: int, size: int = 32) -> np.ndarray:
    return RNG.normal(size=(count, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize("dialect", ["ort", "trt"])
@pytest.mark.parametrize(
    ("vision", "top"),
    [
        pytest.param({}, {}, id="internvit-300m"),
        pytest.param(
            {"use_qk_norm": True, "norm_type": "rms_norm", "attention_bias": False}, {}, id="internvit-6b"
        ),
        pytest.param({"use_mean_pooling": False, "hidden_act": "gelu_pytorch_tanh"}, {}, id="last-norm"),
        pytest.param({"hidden_act": "quick_gelu"}, {"projector_hidden_act": "silu"}, id="activations"),
        pytest.param({"use_absolute_position_embeddings": False}, {"downsample_ratio": 0.25}, id="quarter"),
        pytest.param({"use_mean_pooling": False}, {"vision_feature_layer": -2}, id="layer-before-last"),
        pytest.param({"use_mean_pooling": False}, {"vision_feature_layer": 2}, id="last-without-norm"),
    ],
)  # fmt: skip
def test_equals_transformers(vision: dict[str, Any], top: dict[str, Any], dialect: str) -> None:
    model, pixels = make_model(vision=vision, **top), tiles(3)
    got = run(graph_of(model, dialect=dialect), pixels)
    assert got.std() > 0.1
    np.testing.assert_allclose(got, expected(model, pixels), atol=EXACT)


@pytest.mark.parametrize("size", [16, 48])
def test_another_size_interpolates_positions(size: int) -> None:
    """A token budget changes the picture's size; the positions follow by the model's own code."""
    model, pixels = make_model(), tiles(2, size)
    got = run(graph_of(model, size), pixels)
    assert got.shape == (2, (size // 16) ** 2, 64)
    np.testing.assert_allclose(got, expected(model, pixels), atol=EXACT)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_equals_traced_graph() -> None:
    """The exporter's own trace is a second oracle, independent of how this module reads the weights."""
    model = make_model(vision={"use_qk_norm": True})

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model.model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            states = self.inner.vision_tower(pixel_values).last_hidden_state[:, 1:]
            grid = self.inner.pixel_shuffle(states.reshape(-1, 4, 4, 32))
            tokens: torch.Tensor = self.inner.multi_modal_projector(grid.reshape(-1, 4, 128))
            return tokens

    pixels = tiles(1)
    traced = torch.onnx.export(Tower().eval(), (torch.from_numpy(pixels),), dynamo=True, verbose=False)
    assert traced is not None
    oracle = ort.InferenceSession(traced.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = oracle.run(None, {oracle.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(run(graph_of(model), pixels), want, atol=EXACT)


@pytest.mark.parametrize(
    ("storage", "floor"),
    [(Storage("fp16"), 0.999999), (Storage("int8"), 0.999), (Storage("int4", block_size=16), 0.95)],
)
def test_quantised_stays_close(storage: Storage, floor: float) -> None:
    model, pixels = make_model(), tiles(2)
    exact, got = run(graph_of(model), pixels).ravel(), run(graph_of(model, storage=storage), pixels).ravel()
    assert exact @ got / np.linalg.norm(exact) / np.linalg.norm(got) > floor
    assert not np.array_equal(exact, got)


def test_tiny_layer_scales_survive_float16() -> None:
    """Trained scales can be 1e-6, where a scaled matrix in float16 would lose most of its digits."""
    model, pixels = make_model(), tiles(1)
    with torch.no_grad():
        for layer in model.model.vision_tower.encoder.layer:
            layer.lambda_1 *= 1e-6
            layer.mlp.fc2.weight *= 50
            layer.lambda_2 *= 2e-2
    np.testing.assert_allclose(
        run(graph_of(model, storage=Storage("fp16")), pixels), expected(model, pixels), atol=5e-3
    )


@pytest.mark.parametrize(
    ("vision", "top", "size", "fault"),
    [
        ({}, {"projector_hidden_act": "relu"}, 32, "projector act 'relu'"),
        ({"hidden_act": "relu"}, {}, 32, "hidden_act 'relu'"),
        ({"patch_size": [8, 4]}, {}, 32, r"patches of \[8, 4\]"),
        ({"image_size": [32, 16]}, {}, 32, r"pictures of \[32, 16\]"),
        ({}, {"vision_feature_select_strategy": "full"}, 32, "vision_feature_select_strategy 'full'"),
        ({}, {"vision_feature_layer": [-1, -2]}, 32, r"vision_feature_layer \[-1, -2\]"),
        ({}, {"vision_feature_layer": 5}, 32, "vision_feature_layer 5 of 2"),
        ({}, {"vision_feature_layer": -3}, 32, "vision_feature_layer -3 of 2"),
        ({}, {"downsample_ratio": 0.4}, 32, "downsample_ratio 0.4"),
        ({}, {}, 40, "40 px in patches of 8 shuffled by 2"),
    ],
)
def test_unknown_towers_are_refused(vision: dict[str, Any], top: dict[str, Any], size: int, fault: str) -> None:
    with pytest.raises(CheckpointError, match=fault):
        graph_of(make_model(vision=vision, **top), size)
