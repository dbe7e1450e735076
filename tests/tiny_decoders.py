"""Tiny random text decoders of every kind that can be exported, and a runner for their graphs."""

from typing import Any

import numpy as np

HIDDEN, LAYERS, VOCABULARY, WINDOW = 64, 3, 96, 8
KINDS = ("llama", "qwen2", "qwen3", "qwen2_5_vl", "gemma3")
SHARED: dict[str, Any] = {
    "hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 160, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "attn_implementation": "eager",
}  # fmt: skip
"""Odd sizes on purpose: three layers, two heads to a key-value head."""


def make_decoder(kind: str, **changes: Any) -> Any:
    """A transformers text model of a kind, with norms, biases and matrices all of visible size."""
    import torch
    import transformers as hf

    plain = {"rope_type": "default", "rope_theta": 10000.0}
    classes = {
        "llama": (hf.LlamaConfig, hf.LlamaModel, {"head_dim": 16, "rope_parameters": plain}),
        "qwen2": (hf.Qwen2Config, hf.Qwen2Model, {"rope_parameters": plain}),
        "qwen3": (hf.Qwen3Config, hf.Qwen3Model, {"head_dim": 32, "rope_parameters": plain}),
        "qwen2_5_vl": _qwen2_5_vl(plain),
        "gemma3": (hf.Gemma3TextConfig, hf.Gemma3TextModel, {
            "head_dim": 32, "sliding_window": WINDOW, "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            },
        }),
    }  # fmt: skip
    config_class, model_class, own = classes[kind]
    torch.manual_seed(11)
    model = model_class(config_class(**(SHARED | own | changes))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            middle = 0.0 if kind == "gemma3" else 1.0  # Gemma stores a norm's factor less 1
            parameter.copy_(middle + 0.3 * noise if "norm" in name else 0.12 * noise)
    return model


def _qwen2_5_vl(plain: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

    return Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, {"rope_parameters": plain | {"mrope_section": [2, 3, 3]}}


class Runner:
    """A trunk graph in onnxruntime, fed as the runtime feeds it."""

    def __init__(self, graph: Any) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(
            graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        inputs = {i.name: i.shape for i in self.session.get_inputs()}
        self.names = set(inputs)
        _, self.kv_heads, _, self.head_dim = inputs["past_key_values.0.key"]
        kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
        self.kind = kinds[next(i.type for i in self.session.get_inputs() if i.name == "past_key_values.0.key")]
        self.keys = [n for n in inputs if n.startswith("past_key_values.")]
        self.outputs = [o.name for o in self.session.get_outputs()]

    def empty(self, batch: int) -> dict[str, np.ndarray]:
        """A cache without positions."""
        return {name: np.zeros((batch, self.kv_heads, 0, self.head_dim), self.kind) for name in self.keys}

    def run(
        self, embeds: np.ndarray, mask: np.ndarray, positions: np.ndarray | None = None,
        past: dict[str, np.ndarray] | None = None, **more: np.ndarray,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:  # fmt: skip
        """Hidden states of the asked positions (all of them by default) and the cache for the next call."""
        batch, count, _ = embeds.shape
        if positions is None:
            positions = np.tile(np.arange(count), (batch, 1))
        feeds = {"inputs_embeds": embeds, "attention_mask": mask, "positions": positions, **more}
        if "position_ids" in self.names and "position_ids" not in more:
            first = mask.shape[1] - count
            feeds["position_ids"] = np.tile(np.arange(first, first + count), (3, batch, 1))
        if "image_blocks" in self.names and "image_blocks" not in more:
            feeds["image_blocks"] = np.zeros((batch, count), np.int64)
        out = dict(zip(self.outputs, self.session.run(self.outputs, feeds | (past or self.empty(batch))), strict=True))
        cache = {n.replace("present", "past_key_values"): v for n, v in out.items() if n.startswith("present.")}
        return out["hidden_states"], cache


def torch_hidden(model: Any, embeds: np.ndarray, mask: Any = None, **more: Any) -> np.ndarray:
    """Last hidden states (B, S, H) by transformers; `mask` an array or transformers' mapping of 4-D masks."""
    import torch

    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(mask)
    with torch.no_grad():
        out = model(inputs_embeds=torch.from_numpy(embeds), attention_mask=mask, use_cache=False, **more)
    return out.last_hidden_state.numpy()
