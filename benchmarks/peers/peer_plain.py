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

KINDS = ("vision", "decoder", "head")


class Peer:
    """precision: "fp32" or "int8"."""

    MISSING = ""

    @staticmethod
    def prepare(folder: Path, precision: str) -> None:
        """Export what is missing under FOLDER/plain."""
        place = folder / "plain"
        if not (place / "head.onnx").is_file():
            export(folder / "vlm", place)
        if precision == "int8" and not (place / "head_int8.onnx").is_file():
            from onnxruntime.quantization import QuantType, quantize_dynamic

            for kind in KINDS:
                quantize_dynamic(place / f"{kind}.onnx", place / f"{kind}_int8.onnx", weight_type=QuantType.QInt8)

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        tail = "_int8" if precision == "int8" else ""
        files = [str(folder / "plain" / f"{kind}{tail}.onnx") for kind in KINDS]
        self._vision, self._decoder, self._head = (
            onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for file in files
        )
        past = [given for given in self._decoder.get_inputs() if given.name.startswith("past_")]
        self._past = [given.name for given in past]
        self._empty = [np.empty((1, given.shape[1], 0, given.shape[3]), np.float32) for given in past]
        self._table = np.load(folder / "table.npy", mmap_mode="r")

    def text(self, ids: Any) -> Any:
        """Last hidden states (B, H) of token ids (B, S)."""
        return self._extend(self._rows(ids))[0]

    def vision(self, pixels: Any) -> Any:
        """Image tokens (1, T, H) of pixels (1, 3, side, side)."""
        return self._vision.run(None, {"pixel_values": pixels})[0]

    def picture(self, pixels: Any, before: Any, after: Any) -> Any:
        """Last hidden state (1, H) of words, a picture and words."""
        parts = [self._rows(before), self.vision(pixels), self._rows(after)]
        return self._extend(np.concatenate(parts, axis=1))[0]

    def answer(self, prompt: Any, tokens: Any) -> Any:
        """Logits (V,) behind a prompt (1, S) and given tokens (N,): the head and its largest at every step."""
        hidden, past = self._extend(self._rows(prompt))
        for token in tokens:
            int(self._logits(hidden).argmax())
            hidden, past = self._extend(self._rows(np.array([[token]])), past)
        return self._logits(hidden)[0]

    def pairs(self, prefix: Any, suffixes: Any) -> Any:
        """Last hidden states (N, H), every pair read in full, all in one batch."""
        return self.text(np.concatenate([np.repeat(prefix, len(suffixes), axis=0), suffixes], axis=1))

    def pairs_shared(self, prefix: Any, suffixes: Any) -> Any:
        """The same; the prefix is read once and its cache repeated."""
        past = [np.repeat(one, len(suffixes), axis=0) for one in self._extend(self._rows(prefix))[1]]
        return self._extend(self._rows(suffixes), past)[0]

    def _rows(self, ids: Any) -> Any:
        return np.asarray(self._table[ids], np.float32)

    def _extend(self, embeds: Any, past: Any = None) -> tuple[Any, list[Any]]:
        """The last hidden states (B, H) of embeddings (B, S, H) behind a past, and what is the past from then on."""
        batch, length, _ = embeds.shape
        past = past or [np.repeat(empty, batch, axis=0) for empty in self._empty]
        mask = np.ones((batch, past[0].shape[2] + length), np.int64)
        fed = dict(zip(self._past, past, strict=True)) | {"inputs_embeds": embeds, "attention_mask": mask}
        hidden, *present = self._decoder.run(None, fed)
        return hidden[:, -1], present

    def _logits(self, hidden: Any) -> Any:
        return self._head.run(None, {"hidden_states": hidden[:, None]})[0][:, 0]


def export(checkpoint: Path, place: Path) -> None:
    """Write vision.onnx, decoder.onnx and head.onnx of a SmolVLM in float32."""
    import torch
    from torch_modules import Decoder, Vision, load

    place.mkdir(parents=True, exist_ok=True)
    model = load(checkpoint)
    config, side = model.config.text_config, model.config.vision_config.image_size
    # Two rows, several positions and a past: a dimension of 1 or 0 would be taken for a constant.
    shape = (2, config.num_key_value_heads, 3, config.head_dim)
    past = [torch.zeros(shape) for _ in range(2 * config.num_hidden_layers)]
    names = [f"{layer}.{part}" for layer in range(config.num_hidden_layers) for part in ("key", "value")]
    grown = torch.export.Dim.DYNAMIC
    _write(Vision(model), (torch.zeros(1, 3, side, side),), place / "vision.onnx", {"pixel_values": None}, ["tokens"])
    _write(
        Decoder(model),
        (torch.zeros(2, 4, config.hidden_size), torch.ones(2, 7, dtype=torch.int64), *past),
        place / "decoder.onnx",
        {"inputs_embeds": {0: grown, 1: grown}, "attention_mask": {0: grown, 1: grown}}
        | {f"past_key_values.{name}": {0: grown, 2: grown} for name in names},
        ["hidden_states", *(f"present.{name}" for name in names)],
    )
    # Three axes, because quantize_dynamic breaks the shapes of the Gemm that two would give.
    head = torch.zeros(2, 1, config.hidden_size)
    _write(model.lm_head, (head,), place / "head.onnx", {"hidden_states": {0: grown}}, ["logits"])


def _write(module: Any, example: tuple[Any, ...], file: Path, axes: dict[str, Any], outputs: list[str]) -> None:
    """One graph. What the exporter prints and warns of is not ours to answer."""
    import torch

    shapes = tuple(axes.values())
    if file.stem == "decoder":
        shapes = (*shapes[:2], shapes[2:])  # the past is one *argument
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), example, str(file), input_names=list(axes), output_names=outputs, dynamic_shapes=shapes,
            dynamo=True, verbose=False,
        )  # fmt: skip
