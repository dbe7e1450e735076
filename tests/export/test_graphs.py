"""The SmolVLM tower's graph against transformers and against a trace, on a tiny model with random weights."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from edgegeo.export.graph import Graph
from edgegeo.export.linear import Storage
from edgegeo.export.vision import smolvlm
from edgegeo.models.family import find_family

EXACT = 2e-5
RNG = np.random.default_rng(3)


def session(graph: Graph) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])


def vision_graph(tiny: Any, storage: Storage) -> Graph:
    made = find_family("smolvlm").parts(tiny)
    spec: Any = SimpleNamespace(size=tiny.config.vision_config.image_size)
    return smolvlm.build(made, tiny.config, spec, storage)


@pytest.mark.parametrize("batch", [1, 3])
def test_vision_equals_torch(tiny: Any, batch: int) -> None:
    pixels = RNG.normal(size=(batch, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = tiny.model.get_image_features(torch.from_numpy(pixels)[:, None]).pooler_output
    got = session(vision_graph(tiny, Storage())).run(None, {"pixel_values": pixels})[0]
    assert got.shape == (batch, 4, 64)
    np.testing.assert_allclose(got, torch.stack(list(expected)).numpy(), atol=EXACT)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_vision_equals_traced_graph(tiny: Any) -> None:
    """The exporter's own trace is a second oracle, independent of how this module reads the weights."""

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny.model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            patches = torch.ones(1, 4, 4, dtype=torch.bool)
            states = self.inner.vision_model(pixel_values, patch_attention_mask=patches).last_hidden_state
            return self.inner.connector(states)

    pixels = torch.from_numpy(RNG.normal(size=(1, 3, 32, 32)).astype(np.float32))
    traced = torch.onnx.export(Tower().eval(), (pixels,), dynamo=True, verbose=False)
    assert traced is not None
    oracle = ort.InferenceSession(traced.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = oracle.run(None, {oracle.get_inputs()[0].name: pixels.numpy()})[0]
    got = session(vision_graph(tiny, Storage())).run(None, {"pixel_values": pixels.numpy()})[0]
    np.testing.assert_allclose(got, expected, atol=EXACT)


@pytest.mark.parametrize(
    ("storage", "floor"),
    [
        (Storage("fp16"), 0.999999),
        (Storage("int8"), 0.999),
        (Storage("int4", block_size=16), 0.97),
    ],
)
def test_quantised_vision_stays_close(tiny: Any, storage: Storage, floor: float) -> None:
    feed = {"pixel_values": RNG.normal(size=(2, 3, 32, 32)).astype(np.float32)}
    exact = session(vision_graph(tiny, Storage())).run(None, feed)[0].ravel()
    got = session(vision_graph(tiny, storage)).run(None, feed)[0].ravel()
    assert exact @ got / np.linalg.norm(exact) / np.linalg.norm(got) > floor
    assert not np.array_equal(exact, got)
