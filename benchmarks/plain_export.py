"""The graphs a person gets from torch.onnx.export alone: transformers' own modules, KV cache in and out as tensors.

Only what the exporter can't do without is wrapped. No fusion, nothing bound in place; int8 is
onnxruntime.quantization.quantize_dynamic on the same files, as they are. The dynamo exporter makes them: the older one
writes three times the nodes, which run no faster, and a SmolVLM tower that onnxruntime refuses to load.
"""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegeo.runtime.sessions import open_session

Floats = NDArray[np.float32]


class Vision(torch.nn.Module):
    """Tower and connector: pixels (1, 3, H, W) to image tokens (1, tokens, hidden)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.connector = model.model.vision_model, model.model.connector

    def forward(self, pixel_values: Tensor) -> Tensor:
        tokens: Tensor = self.connector(self.tower(pixel_values=pixel_values).last_hidden_state)
        return tokens


class Decoder(torch.nn.Module):
    """Embeddings (B, S, H), mask (B, P + S) and flat past (B, kv, P, hd) to hidden states (B, S, H) and present."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text = model.model.text_model

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        from transformers import DynamicCache

        # Filled here, because an exporter takes tensors only.
        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        out = self.text(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, past_key_values=cache, use_cache=True
        )
        present = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        return out.last_hidden_state, *present


class Plain:
    """The three graphs of one precision in onnxruntime, called as their inputs and outputs ask for it."""

    def __init__(self, folder: Path, suffix: str, threads: int | None) -> None:
        self._vision, self._decoder, self._head = (
            open_session(folder / f"{kind}{suffix}.onnx", threads) for kind in ("vision", "decoder", "head")
        )
        past = [given for given in self._decoder.get_inputs() if given.name.startswith("past_")]
        self._past = [given.name for given in past]
        self._empty = [np.empty((1, given.shape[1], 0, given.shape[3]), np.float32) for given in past]

    def vision(self, pixels: Floats) -> Floats:
        """Image tokens (1, tokens, hidden) of one picture."""
        out: Floats = self._vision.run(None, {"pixel_values": pixels})[0]
        return out

    def embed(self, embeds: Floats) -> Floats:
        """The last hidden state (B, H) of embeddings (B, S, H)."""
        return self._extend(embeds)[0][:, 0]

    def prefill(self, embeds: Floats) -> tuple[Floats, list[Floats]]:
        """Logits (B, V) after a prompt (B, S, H), and its KV cache."""
        hidden, present = self._extend(embeds)
        return self._logits(hidden), present

    def decode(self, embeds: Floats, past: list[Floats]) -> Floats:
        """Logits (1, V) after feeding embeddings (1, S, H) one by one; the head runs at every step."""
        for at in range(embeds.shape[1]):
            hidden, past = self._extend(embeds[:, at : at + 1], past)
            logits = self._logits(hidden)
        return logits

    def _extend(self, embeds: Floats, past: list[Floats] | None = None) -> tuple[Floats, list[Floats]]:
        """The last hidden state (B, 1, H) of embeddings (B, S, H) behind a past, and what is the past from then on."""
        batch, length, _ = embeds.shape
        past = past or [np.repeat(empty, batch, axis=0) for empty in self._empty]
        mask = np.ones((batch, past[0].shape[2] + length), np.int64)
        fed = dict(zip(self._past, past, strict=True)) | {"inputs_embeds": embeds, "attention_mask": mask}
        hidden, *present = self._decoder.run(None, fed)
        return hidden[:, -1:], present

    def _logits(self, hidden: Floats) -> Floats:
        out: Floats = self._head.run(None, {"hidden_states": hidden})[0][:, 0]
        return out


def export(model: Any, folder: Path) -> None:
    """Write vision.onnx, decoder.onnx and head.onnx of a SmolVLM in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.text_config
    side, layers = model.config.vision_config.image_size, config.num_hidden_layers
    # Two rows, several positions and a past: a dimension of 1 or 0 would be taken for a constant.
    past = [torch.zeros(2, config.num_key_value_heads, 3, config.head_dim) for _ in range(2 * layers)]
    names = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    grown = torch.export.Dim.DYNAMIC
    _write(Vision(model), (torch.zeros(1, 3, side, side),), folder / "vision.onnx", {"pixel_values": None}, ["tokens"])
    _write(
        Decoder(model),
        (torch.zeros(2, 4, config.hidden_size), torch.ones(2, 7, dtype=torch.int64), *past),
        folder / "decoder.onnx",
        {"inputs_embeds": {0: grown, 1: grown}, "attention_mask": {0: grown, 1: grown}}
        | {f"past_key_values.{name}": {0: grown, 2: grown} for name in names},
        ["hidden_states", *(f"present.{name}" for name in names)],
    )
    # Three axes, because quantize_dynamic breaks the shapes of the Gemm that two would give.
    head = torch.zeros(2, 1, config.hidden_size)
    _write(model.lm_head, (head,), folder / "head.onnx", {"hidden_states": {0: grown}}, ["logits"])


def quantise(folder: Path) -> None:
    """Write vision_int8.onnx, decoder_int8.onnx and head_int8.onnx beside the float32 ones."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for kind in ("vision", "decoder", "head"):
        quantize_dynamic(folder / f"{kind}.onnx", folder / f"{kind}_int8.onnx", weight_type=QuantType.QInt8)


def _write(module: Any, example: tuple[Tensor, ...], file: Path, axes: dict[str, Any], outputs: list[str]) -> None:
    """One graph. What the exporter prints and warns of is not ours to answer."""
    shapes = tuple(axes.values())
    if isinstance(module, Decoder):
        shapes = (*shapes[:2], shapes[2:])  # the past is one *argument
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            example,
            str(file),
            input_names=list(axes),
            output_names=outputs,
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
