"""The SigLIP towers of SmolVLM and Gemma 3 against transformers, on tiny random models, in both dialects."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from edgegeo.errors import CheckpointError
from edgegeo.export.graph import Graph
from edgegeo.export.linear import Storage
from edgegeo.export.vision import gemma3, siglip, smolvlm

EXACT = 2e-5
RNG = np.random.default_rng(5)
DIALECTS = ["ort", "trt"]
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "image_size": 32, "patch_size": 4}  # fmt: skip


def run(graph: Graph, pixels: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    opened = ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    return opened.run(["image_features"], {"pixel_values": pixels})[0]


def randomise(model: Any) -> None:
    """Weights of visible size everywhere: unit norms, zero biases and a zero projection would hide a forgotten one."""
    torch.manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            ones = "norm" in name and name.endswith("weight") and "soft_emb" not in name
            parameter.copy_(1 + 0.2 * noise if ones else 0.2 * noise)


@pytest.fixture(scope="module")
def gemma() -> Any:
    """The vision side of a Gemma 3: 32 px, patch 4, 8 x 8 patches pooled to 4 x 4 tokens."""
    from transformers import Gemma3Config, Gemma3Model

    text = {"hidden_size": 40, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 64}  # fmt: skip
    vision = TOWER | {"model_type": "siglip_vision_model", "vision_use_head": False}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=16, image_token_index=3)
    model = Gemma3Model(config).eval()
    randomise(model)
    return model


@pytest.fixture(scope="module")
def smol() -> Any:
    """The vision side of a SmolVLM: 32 px, patch 4, 8 x 8 patches shuffled to 4 x 4 tokens."""
    from transformers import SmolVLMConfig, SmolVLMModel

    text = {"model_type": "llama", "hidden_size": 40, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 64}  # fmt: skip
    model = SmolVLMModel(SmolVLMConfig(text_config=text, vision_config=TOWER, scale_factor=2, image_token_id=3)).eval()
    randomise(model)
    return model


def parts(vision: Any, connector: Any) -> Any:
    return SimpleNamespace(vision=vision, connector=connector)


def spec(size: int) -> Any:
    return SimpleNamespace(size=size)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_gemma_tower_equals_transformers(gemma: Any, dialect: str, batch: int) -> None:
    pixels = RNG.normal(size=(batch, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = gemma.get_image_features(torch.from_numpy(pixels)).pooler_output.numpy()
    graph = gemma3.build(
        parts(gemma.vision_tower, gemma.multi_modal_projector), gemma.config, spec(32), Storage(), dialect
    )
    got = run(graph, pixels)
    assert got.shape == (batch, 16, 40)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=EXACT)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", [32, 16, 24, 48])
def test_smolvlm_tower_equals_transformers_at_any_size(smol: Any, dialect: str, size: int) -> None:
    pixels = RNG.normal(size=(2, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        expected = smol.connector(smol.vision_model(torch.from_numpy(pixels)).last_hidden_state).numpy()
    graph = smolvlm.build(parts(smol.vision_model, smol.connector), smol.config, spec(size), Storage(), dialect)
    got = run(graph, pixels)
    assert got.shape == (2, (size // 8) ** 2, 40)
    np.testing.assert_allclose(got, expected, atol=EXACT)


def test_siglip_positions_of_another_size_are_the_modules_own(gemma: Any) -> None:
    tower, pixels = gemma.vision_tower, RNG.normal(size=(1, 3, 48, 48)).astype(np.float32)
    with torch.no_grad():
        expected = tower(torch.from_numpy(pixels), interpolate_pos_encoding=True).last_hidden_state.numpy()
    graph = Graph("tower")
    states = siglip.encoder(graph, tower, tower.config, 48, Storage())
    graph.node("Identity", [states], "image_features")
    graph.output("image_features", 1, ["batch", 144, 32])
    np.testing.assert_allclose(run(graph, pixels), expected, atol=EXACT)


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "quick_gelu"])
def test_activations_are_told_apart(activation: str) -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    model = SiglipVisionModel(SiglipVisionConfig(**TOWER, hidden_act=activation, vision_use_head=False)).eval()
    randomise(model)
    pixels = RNG.normal(size=(1, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)).last_hidden_state.numpy()
    graph = Graph("tower")
    graph.node("Identity", [siglip.encoder(graph, model, model.config, 32, Storage())], "image_features")
    graph.output("image_features", 1, ["batch", 64, 32])
    np.testing.assert_allclose(run(graph, pixels), expected, atol=EXACT)


@pytest.mark.parametrize(("precision", "floor"), [("fp16", 0.99999), ("int8", 0.99), ("int4", 0.9)])
def test_quantised_gemma_tower_stays_close(gemma: Any, precision: str, floor: float) -> None:
    made = parts(gemma.vision_tower, gemma.multi_modal_projector)
    pixels = RNG.normal(size=(2, 3, 32, 32)).astype(np.float32)
    exact = run(gemma3.build(made, gemma.config, spec(32), Storage()), pixels).ravel()
    got = run(gemma3.build(made, gemma.config, spec(32), Storage(precision)), pixels).ravel()
    assert float(got @ exact / np.linalg.norm(got) / np.linalg.norm(exact)) > floor


def test_unknown_towers_are_refused(gemma: Any, smol: Any) -> None:
    made = parts(gemma.vision_tower, gemma.multi_modal_projector)
    with pytest.raises(CheckpointError, match="32 px only, not 64"):
        gemma3.build(made, gemma.config, spec(64), Storage())
    with pytest.raises(CheckpointError, match="patches of 4 px don't fill"):
        smolvlm.build(parts(smol.vision_model, smol.connector), smol.config, spec(34), Storage())
    with pytest.raises(CheckpointError, match="choose a multiple of 8 px"):
        smolvlm.build(parts(smol.vision_model, smol.connector), smol.config, spec(36), Storage())
    strange = SimpleNamespace(hidden_act="relu", hidden_size=32, num_attention_heads=4, image_size=32, patch_size=4)
    with pytest.raises(CheckpointError, match="activation 'relu'"):
        siglip.check(strange, 32)
    strange = SimpleNamespace(
        hidden_act="gelu", hidden_size=32, num_attention_heads=4, image_size=[32, 48], patch_size=4
    )
    with pytest.raises(CheckpointError, match=r"pictures of \[32, 48\] px"):
        siglip.check(strange, 32)
