"""The directly built graphs against transformers, on a tiny model with random weights."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from edgegeo.errors import CheckpointError
from edgegeo.export.graph import Graph
from edgegeo.export.head import build_head
from edgegeo.export.linear import Storage
from edgegeo.export.trunk import build_trunk, trunk_shape
from edgegeo.export.vision import build_vision

EXACT = 2e-5
RNG = np.random.default_rng(3)


def session(graph: Graph) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])


def empty_past(model: Any, batch: int) -> dict[str, np.ndarray]:
    c = model.config.text_config
    shape = (batch, c.num_key_value_heads, 0, c.head_dim)
    return {
        f"past_key_values.{i}.{p}": np.zeros(shape, np.float32)
        for i in range(c.num_hidden_layers)
        for p in ("key", "value")
    }


def torch_hidden(model: Any, embeds: np.ndarray, mask: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = model.model.text_model(inputs_embeds=torch.from_numpy(embeds), attention_mask=torch.from_numpy(mask))
    return out.last_hidden_state.numpy()


@pytest.mark.parametrize("batch", [1, 3])
def test_vision_equals_torch(tiny: Any, batch: int) -> None:
    pixels = RNG.normal(size=(batch, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = tiny.model.get_image_features(torch.from_numpy(pixels)[:, None]).pooler_output
    got = session(build_vision(tiny.model, Storage())).run(None, {"pixel_values": pixels})[0]
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
    got = session(build_vision(tiny.model, Storage())).run(None, {"pixel_values": pixels.numpy()})[0]
    np.testing.assert_allclose(got, expected, atol=EXACT)


def test_trunk_padded_batch_equals_torch(tiny: Any) -> None:
    embeds = RNG.normal(size=(3, 9, 64)).astype(np.float32)
    mask = np.array([[1] * 9, [1] * 6 + [0] * 3, [1] * 2 + [0] * 7], np.int64)
    positions = np.array([[8, 0], [5, 3], [1, 0]], np.int64)
    feed = {"inputs_embeds": embeds, "attention_mask": mask, "positions": positions, **empty_past(tiny, 3)}
    got = session(build_trunk(tiny.model.text_model, Storage())).run(["hidden_states"], feed)[0]
    expected = np.take_along_axis(torch_hidden(tiny, embeds, mask), positions[..., None], axis=1)
    np.testing.assert_allclose(got, expected, atol=EXACT)


def test_trunk_continues_from_its_cache(tiny: Any) -> None:
    """Prefill of 5, then 3 more, then one by one, equals one pass over all."""
    embeds = RNG.normal(size=(1, 10, 64)).astype(np.float32)
    expected = torch_hidden(tiny, embeds, np.ones((1, 10), np.int64))
    trunk = session(build_trunk(tiny.model.text_model, Storage()))
    names = [o.name for o in trunk.get_outputs()]
    past, got, done = empty_past(tiny, 1), [], 0
    for count in (5, 3, 1, 1):
        feed = {
            "inputs_embeds": embeds[:, done : done + count],
            "attention_mask": np.ones((1, done + count), np.int64),
            "positions": np.arange(count)[None],
        }
        out = dict(zip(names, trunk.run(None, feed | past), strict=True))
        past = {f"past_key_values.{n[8:]}": v for n, v in out.items() if n.startswith("present.")}
        got.append(out["hidden_states"])
        done += count
    np.testing.assert_allclose(np.concatenate(got, axis=1), expected, atol=EXACT)


def test_head_equals_torch(tiny: Any) -> None:
    states = RNG.normal(size=(2, 1, 64)).astype(np.float32)
    got = session(build_head(tiny.lm_head, Storage())).run(None, {"hidden_states": states})[0]
    with torch.no_grad():
        np.testing.assert_allclose(got, tiny.lm_head(torch.from_numpy(states)).numpy(), atol=EXACT)


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
    exact = session(build_vision(tiny.model, Storage())).run(None, feed)[0].ravel()
    got = session(build_vision(tiny.model, storage)).run(None, feed)[0].ravel()
    assert exact @ got / np.linalg.norm(exact) / np.linalg.norm(got) > floor
    assert not np.array_equal(exact, got)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope type 'linear'"),
        ({"model_type": "qwen3"}, "type 'qwen3'"),
        ({"sliding_window": 16}, "sliding_window=16"),
        ({"head_dim": 20}, "head size 20"),
    ],
)
def test_unknown_decoder_is_refused(tiny: Any, change: dict[str, Any], fault: str) -> None:
    known = {k: getattr(tiny.config.text_config, k) for k in (
        "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
        "max_position_embeddings", "rms_norm_eps", "hidden_act", "model_type", "rope_parameters")}  # fmt: skip
    assert trunk_shape(SimpleNamespace(**known)).layers == 2
    with pytest.raises(CheckpointError, match=next(iter(change)).split("_")[0].replace("hidden", "activation")):
        trunk_shape(SimpleNamespace(**(known | change)))
