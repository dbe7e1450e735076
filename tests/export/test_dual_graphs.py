"""The graphs of dual encoders against transformers, on tiny models whose every parameter is random."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from dual import LENGTH, SIZE, clip_model, siglip_model

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.export.graph import Graph
from edgegeo.export.linear import Storage
from edgegeo.export.text_encoder import build_clip_text, build_siglip_text
from edgegeo.export.vision import build_vision
from edgegeo.models.family import find_family

EXACT = 2e-5
DIALECTS = ["ort", "trt"]
RNG = np.random.default_rng(5)


def run(graph: Graph, name: str, value: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    out = session.run(None, {name: value})[0]
    assert isinstance(out, np.ndarray)
    return out


def pixels(batch: int, size: int = SIZE) -> np.ndarray:
    return RNG.normal(size=(batch, 3, size, size)).astype(np.float32)


def vision_graph(model: Any, storage: Storage, dialect: str = "ort", size: int = SIZE) -> Graph:
    family = find_family(model.config.model_type)
    spec = ImageSpec(family.name, size, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3, 1, shortest_edge=size)
    return build_vision(family.vision, family.parts(model), model.config, spec, storage, dialect)


def image_features(model: Any, value: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model.get_image_features(torch.from_numpy(value)).pooler_output.numpy())


def text_features(model: Any, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model.get_text_features(torch.from_numpy(ids)).pooler_output.numpy())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
def test_clip_vision_equals_torch(batch: int, dialect: str, activation: str) -> None:
    model, value = clip_model(activation=activation), pixels(batch)
    graph = vision_graph(model, Storage(), dialect)
    np.testing.assert_allclose(run(graph, "pixel_values", value), image_features(model, value), atol=EXACT)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("eos", [3, 2])
@pytest.mark.parametrize("width", [6, LENGTH])
def test_clip_text_equals_torch(width: int, eos: int, dialect: str) -> None:
    """Rows that end early are padded; with the old eos_token_id 2 the highest id is the end of the text."""
    model = clip_model(eos)
    ids = RNG.integers(4, 300, (3, width))
    end = 3 if eos == 3 else 310
    for row, at in enumerate((width - 1, 3, 1)):
        ids[row, at:] = end
    graph = build_clip_text(model.text_model, model.text_projection, Storage(), dialect=dialect)
    np.testing.assert_allclose(run(graph, "input_ids", ids), text_features(model, ids), atol=EXACT)


def test_clip_text_is_not_changed_by_its_padding() -> None:
    model = clip_model()
    graph = build_clip_text(model.text_model, model.text_projection, Storage())
    short = np.array([[1, 40, 50, 3]])
    padded = np.concatenate([short, np.full((1, LENGTH - 4), 7)], axis=1)
    np.testing.assert_allclose(run(graph, "input_ids", short), run(graph, "input_ids", padded), atol=1e-6)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_siglip_vision_equals_torch(batch: int, dialect: str) -> None:
    model, value = siglip_model(), pixels(batch)
    graph = vision_graph(model, Storage(), dialect)
    np.testing.assert_allclose(run(graph, "pixel_values", value), image_features(model, value), atol=EXACT)


@pytest.mark.parametrize("make", [clip_model, siglip_model])
@pytest.mark.parametrize("size", [24, 48])
def test_another_picture_size_equals_torch(make: Any, size: int) -> None:
    """The token budget: positions are interpolated as transformers interpolates them."""
    model, value = make(), pixels(2, size)
    with torch.no_grad():
        features = model.get_image_features(torch.from_numpy(value), interpolate_pos_encoding=True).pooler_output
    got = run(vision_graph(model, Storage(), size=size), "pixel_values", value)
    np.testing.assert_allclose(got, features.numpy(), atol=EXACT)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_siglip_text_equals_torch_and_reads_its_padding(dialect: str) -> None:
    model = siglip_model()
    ids = RNG.integers(4, 300, (3, LENGTH))
    ids[1, 5:], ids[2, 2:] = 3, 3
    graph = build_siglip_text(model.text_model, Storage(), dialect=dialect)
    got = run(graph, "input_ids", ids)
    np.testing.assert_allclose(got, text_features(model, ids), atol=EXACT)
    ids[1, 9] = 4
    assert np.abs(run(graph, "input_ids", ids)[1] - got[1]).max() > 1e-3


@pytest.mark.parametrize(("precision", "floor"), [("fp16", 0.999999), ("int8", 0.995), ("int4", 0.95)])
def test_quantised_encoders_stay_close(precision: str, floor: float) -> None:
    storage, ids = Storage(precision, block_size=16), RNG.integers(4, 300, (2, LENGTH))
    ids[:, -1] = 3
    clip, siglip = clip_model(), siglip_model()
    pairs = [
        (run(vision_graph(clip, storage), "pixel_values", value := pixels(2)),
         image_features(clip, value)),
        (run(build_clip_text(clip.text_model, clip.text_projection, storage, "fp16"), "input_ids", ids),
         text_features(clip, ids)),
        (run(vision_graph(siglip, storage), "pixel_values", value), image_features(siglip, value)),
        (run(build_siglip_text(siglip.text_model, storage, "fp16"), "input_ids", ids), text_features(siglip, ids)),
    ]  # fmt: skip
    for got, wanted in pairs:
        cosine = (got * wanted).sum(-1) / np.linalg.norm(got, axis=-1) / np.linalg.norm(wanted, axis=-1)
        assert cosine.min() > floor
        assert not np.array_equal(got, wanted)


def test_unknown_encoders_are_refused() -> None:
    model = clip_model(activation="relu")
    with pytest.raises(CheckpointError, match="the vision tower uses activation 'relu'"):
        vision_graph(model, Storage())
    model = clip_model()
    model.text_model.config.eos_token_id = [2, 3]
    with pytest.raises(CheckpointError, match="needs one eos_token_id"):
        build_clip_text(model.text_model, model.text_projection, Storage())
    siglip = siglip_model()
    siglip.vision_model.use_head = False
    with pytest.raises(CheckpointError, match="no pooling head"):
        vision_graph(siglip, Storage())
