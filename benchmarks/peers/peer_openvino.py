"""OpenVINO: transformers' modules converted, the cache made a state, weights compressed by NNCF."""

from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION = 8
"""Pictures that NNCF takes the ranges of the vision tower's activations from."""


class Peer:
    """precision: "fp32"; "int8" (8-bit weights, vision tower with 8-bit activations too); "int4" (4-bit decoder)."""

    MISSING = ""

    @staticmethod
    def prepare(folder: Path, precision: str) -> None:
        """FOLDER/openvino-PRECISION/{vision,decoder,head}.xml."""
        place = folder / f"openvino-{precision}"
        if not (place / "head.xml").is_file():
            convert(folder / "vlm", place, precision)

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        import openvino

        core = openvino.Core()
        # Left to itself it computes in bfloat16 where the processor can.
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if precision == "fp32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        place = folder / f"openvino-{precision}"
        self._vision, self._decoder, self._head = (
            core.compile_model(place / f"{kind}.xml", "CPU", settings).create_infer_request()
            for kind in ("vision", "decoder", "head")
        )
        self._table = np.load(folder / "table.npy", mmap_mode="r")

    def text(self, ids: Any) -> Any:
        """Last hidden states (B, H) of token ids (B, S)."""
        return self._start(self._rows(ids))

    def vision(self, pixels: Any) -> Any:
        """Image tokens (1, T, H) of pixels (1, 3, side, side)."""
        return self._vision.infer({0: pixels})[0]

    def picture(self, pixels: Any, before: Any, after: Any) -> Any:
        """Last hidden state (1, H) of words, a picture and words."""
        return self._start(np.concatenate([self._rows(before), self.vision(pixels), self._rows(after)], axis=1))

    def answer(self, prompt: Any, tokens: Any) -> Any:
        """Logits (V,) behind a prompt (1, S) and given tokens (N,): the head and its largest at every step."""
        hidden = self._start(self._rows(prompt))
        for at, token in enumerate(tokens):
            int(self._logits(hidden).argmax())
            hidden = self._extend(self._rows(np.array([[token]])), prompt.shape[1] + at)
        return np.array(self._logits(hidden)).reshape(-1)

    def pairs(self, prefix: Any, suffixes: Any) -> Any:
        """Last hidden states (N, H), every pair read in full, all in one batch."""
        return self.text(np.concatenate([np.repeat(prefix, len(suffixes), axis=0), suffixes], axis=1))

    def pairs_shared(self, prefix: Any, suffixes: Any) -> Any:
        """The same; the prefix is read once, and the rows of its state are repeated by beam_idx."""
        self._start(self._rows(prefix))
        return self._extend(self._rows(suffixes), prefix.shape[1], np.zeros(len(suffixes), np.int32))

    def _rows(self, ids: Any) -> Any:
        return np.asarray(self._table[ids], np.float32)

    def _start(self, embeds: Any) -> Any:
        self._decoder.reset_state()
        return self._extend(embeds, 0)

    def _extend(self, embeds: Any, past: int, rows: Any = None) -> Any:
        batch, length, _ = embeds.shape
        rows = np.arange(batch, dtype=np.int32) if rows is None else rows
        mask = np.ones((batch, past + length), np.int64)
        fed = {"inputs_embeds": embeds, "attention_mask": mask, "beam_idx": rows}
        return np.array(self._decoder.infer(fed)[0][:, -1])

    def _logits(self, hidden: Any) -> Any:
        return self._head.infer({0: hidden[:, None]})[0]


def convert(checkpoint: Path, place: Path, precision: str) -> None:
    """Write the three models of one precision."""
    import nncf
    import openvino
    import torch
    from torch_modules import Decoder, Vision, load

    model = load(checkpoint)
    config, side = model.config.text_config, model.config.vision_config.image_size
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    vision = openvino.convert_model(Vision(model).eval(), example_input=(pixels,), input=[[1, 3, side, side]])
    head = openvino.convert_model(model.lm_head, example_input=(torch.zeros(1, 1, config.hidden_size),))
    past = [torch.zeros(2, config.num_key_value_heads, 3, config.head_dim) for _ in range(2 * config.num_hidden_layers)]
    example = (torch.zeros(2, 4, config.hidden_size), torch.ones(2, 7, dtype=torch.int64), *past)
    with torch.inference_mode():
        decoder = openvino.convert_model(Decoder(model).eval(), example_input=example)
    make_stateful(decoder, config)
    if precision != "fp32":
        some = torch.Generator().manual_seed(1)
        pictures = nncf.Dataset([torch.randn(1, 3, side, side, generator=some).numpy() for _ in range(CALIBRATION)])
        vision = nncf.quantize(vision, pictures, model_type=nncf.ModelType.TRANSFORMER, subset_size=CALIBRATION)
        mode = nncf.CompressWeightsMode.INT4_SYM if precision == "int4" else nncf.CompressWeightsMode.INT8_ASYM
        sizes = {"group_size": 64, "ratio": 1.0} if precision == "int4" else {}
        decoder, head = nncf.compress_weights(decoder, mode=mode, **sizes), nncf.compress_weights(head)
    place.mkdir(parents=True, exist_ok=True)
    for kind, made in (("vision", vision), ("decoder", decoder), ("head", head)):
        openvino.save_model(made, place / f"{kind}.xml", compress_to_fp16=False)


def make_stateful(model: Any, config: Any) -> None:
    """Turn past and present into states whose rows `beam_idx` chooses: without it OpenVINO does not fuse attention."""
    import openvino
    from openvino import opset13
    from openvino._offline_transformations import apply_make_stateful_transformation

    names = ["inputs_embeds", "attention_mask"]
    names += [f"past.{i}" for i in range(2 * config.num_hidden_layers)]
    for given, name in zip(model.inputs, names, strict=True):
        given.get_tensor().set_names({name})
        shape = list(given.get_partial_shape())
        for axis in (0, 2) if name.startswith("past") else (0, 1):
            shape[axis] = openvino.Dimension()
        if name.startswith("past"):
            shape[1], shape[3] = openvino.Dimension(config.num_key_value_heads), openvino.Dimension(config.head_dim)
        elif name == "inputs_embeds":
            shape[2] = openvino.Dimension(config.hidden_size)
        given.get_node().set_partial_shape(openvino.PartialShape(shape))
    for index, made in enumerate(model.outputs):
        made.get_tensor().set_names({"hidden_states" if index == 0 else f"present.{index - 1}"})
    model.validate_nodes_and_infer_types()
    beams = opset13.parameter(openvino.PartialShape([-1]), np.int32, name="beam_idx")
    beams.output(0).get_tensor().set_names({"beam_idx"})
    model.add_parameters([beams])
    for given in model.inputs:
        if given.get_any_name().startswith("past."):
            readers = list(given.get_target_inputs())
            chosen = opset13.gather(given, beams, opset13.constant(0))
            for reader in readers:
                reader.replace_source_output(chosen.output(0))
    model.validate_nodes_and_infer_types()
    pairs = {f"past.{i}": f"present.{i}" for i in range(2 * config.num_hidden_layers)}
    apply_make_stateful_transformation(model, pairs)
    rows = opset13.gather(opset13.shape_of(model.input("inputs_embeds")), opset13.constant([0]), opset13.constant(0))
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            sizes = [rows, *(opset13.constant(np.array([n], np.int64)) for n in (
                config.num_key_value_heads, 0, config.head_dim))]  # fmt: skip
            empty = opset13.broadcast(opset13.constant(0.0, np.float32), opset13.concat(sizes, axis=0))
            node.set_arguments([empty])
    model.validate_nodes_and_infer_types()
