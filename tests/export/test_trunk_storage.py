"""Trunks and heads in smaller number formats, heads of every sort, and decoders that are refused by name."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tiny_decoders import HIDDEN, KINDS, VOCABULARY, Runner, make_decoder

from edgegeo.errors import CheckpointError
from edgegeo.export.decoder_shape import MOST_POSITIONS
from edgegeo.export.head import build_head
from edgegeo.export.linear import Storage
from edgegeo.export.trunk import build_trunk, trunk_shape

dialects = pytest.mark.parametrize("dialect", ["ort", "trt"])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(6).normal(size=shape).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@dialects
@pytest.mark.parametrize("kind", KINDS)
def test_small_formats_stay_close(kind: str, dialect: str) -> None:
    model, embeds, mask = make_decoder(kind), noise(2, 12, HIDDEN), np.ones((2, 12), np.int64)
    exact, _ = Runner(build_trunk(model, Storage(), dialect)).run(embeds, mask)
    int4 = Storage("int4", block_size=64)
    for storage, floor in ((Storage("int8"), 0.999), (int4, 0.95), (Storage("fp16"), 0.999999)):
        got, _ = Runner(build_trunk(model, storage, dialect)).run(embeds, mask)
        assert 1 - 1e-9 > cosine(exact, got) > floor, storage.precision


@dialects
@pytest.mark.parametrize("sort", ["tied", "untied", "biased"])
def test_heads(dialect: str, sort: str) -> None:
    head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=sort == "biased")
    with torch.no_grad():
        if sort == "tied":
            head.weight = make_decoder("qwen2").embed_tokens.weight
        if sort == "biased":
            head.bias.copy_(torch.randn(VOCABULARY))
    states = noise(2, 1, HIDDEN)
    model = build_head(head, Storage(), dialect).model()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = head(torch.from_numpy(states)).numpy()
    np.testing.assert_allclose(session.run(None, {"hidden_states": states})[0], expected, atol=2e-5)


def test_attention_biases_everywhere() -> None:
    """LlamaConfig's own switches for biases that SmolLM2 does not use."""
    from tiny_decoders import torch_hidden

    model, embeds = make_decoder("llama", attention_bias=True, mlp_bias=True), noise(1, 9, HIDDEN)
    for dialect in ("ort", "trt"):
        got, _ = Runner(build_trunk(model, Storage(), dialect)).run(embeds, np.ones((1, 9), np.int64))
        np.testing.assert_allclose(got, torch_hidden(model, embeds), atol=2e-5)


def test_one_bias_of_three_is_refused() -> None:
    model = make_decoder("qwen2")
    model.layers[1].self_attn.k_proj.bias = None
    with pytest.raises(CheckpointError, match=r"layers\.1\.qkv.*some not"):
        build_trunk(model, Storage())


def settings(kind: str, **changes: Any) -> Any:
    """The configuration of a kind as plain attributes, with changes that its own class may not accept."""
    return SimpleNamespace(**({"model_type": ""} | vars_of(make_decoder(kind).config) | changes))


def vars_of(config: Any) -> dict[str, Any]:
    return {**config.to_dict(), "model_type": config.model_type, "rope_parameters": config.rope_parameters}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(kind: str) -> None:
    shape = trunk_shape(settings(kind))
    assert shape == trunk_shape(make_decoder(kind).config)
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads) == (3, HIDDEN, 4, 2)
    assert shape.rope == ("mrope" if kind == "qwen2_5_vl" else "plain")
    assert shape.blocks == (kind == "gemma3")
    assert shape.windows == ((8, 8, 0) if kind == "gemma3" else (0, 0, 0))


def test_tables_are_cut() -> None:
    assert trunk_shape(settings("llama", max_position_embeddings=131072)).max_positions == MOST_POSITIONS


@pytest.mark.parametrize(("kind", "change", "fault"), [
    ("llama", {"model_type": "mistral3"}, "text model type 'mistral3'"),
    ("llama", {"hidden_act": "relu2"}, "activation 'relu2'"),
    ("gemma3", {"hidden_activation": "tanh"}, "activation 'tanh'"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
    ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0"),
    ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ("gemma3", {"sliding_window": None}, "sliding_window=None"),
    ("gemma3", {"rope_parameters": {"full_attention": {"rope_type": "longrope"}}}, "rope type 'longrope'"),
    ("qwen3", {"num_experts": 8}, "num_experts=8"),
    ("qwen3", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}, "'chunked_attention'"),
    ("qwen3", {"layer_types": ["full_attention"]}, "1 layer_types for 3 layers"),
    ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "rope type 'longrope'"),
    ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
    ("llama", {"sliding_window": 16}, "sliding_window=16"),
    ("llama", {"head_dim": 20}, "head size 20"),
    ("llama", {"num_key_value_heads": 3}, "4 heads over 3 key-value heads"),
    ("qwen2_5_vl", {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2]}}, "mrope_section"),
    ("qwen3", {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}, "mrope_section"),
])  # fmt: skip
def test_unknown_decoders_are_refused_by_name(kind: str, change: dict[str, Any], fault: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        trunk_shape(settings(kind, **change))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(CheckpointError, match=r"relu.*num_experts.*head size 20"):
        trunk_shape(settings("llama", hidden_act="relu", num_experts=4, head_dim=20))


def test_head_sizes_of_the_trt_dialect_are_free() -> None:
    from tiny_decoders import torch_hidden

    model, embeds = make_decoder("llama", head_dim=20), noise(1, 9, HIDDEN)
    got, _ = Runner(build_trunk(model, Storage(), "trt")).run(embeds, np.ones((1, 9), np.int64))
    np.testing.assert_allclose(got, torch_hidden(model, embeds), atol=2e-5)
