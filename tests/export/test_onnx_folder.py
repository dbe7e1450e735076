"""Dual encoders exported by another tool: the same graph layouts, traced here by torch's own exporter."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from dual import SIZE, write_clip, write_siglip

from edgegeo.bundle import open_bundle
from edgegeo.errors import CheckpointError, InputError, VerificationError
from edgegeo.export import export
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.reference import reference
from edgegeo.recipe import Recipe, TokenBudget, preset
from edgegeo.runtime import Embedder, verify_bundle

TEXTS = ["A green field beside a river", "dry hills"]
pytestmark = pytest.mark.filterwarnings("ignore")  # the tracer warns of many things, none of which this is about


class Both(torch.nn.Module):
    """What optimum traces: one graph, both towers, embeddings normalised."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, pixel_values: Any, attention_mask: Any) -> Any:
        out = self.model(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)
        return out.logits_per_image, out.logits_per_text, out.text_embeds, out.image_embeds


class Text(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any) -> Any:
        return self.model.get_text_features(input_ids).pooler_output


class Vision(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Any) -> Any:
        return self.model.get_image_features(pixel_values).pooler_output


def trace(module: Any, inputs: dict[str, Any], outputs: list[str], file: Path) -> None:
    free = {name: {0: "batch", 1: "sequence"} if value.ndim == 2 else {0: "batch"} for name, value in inputs.items()}
    file.parent.mkdir(exist_ok=True)
    torch.onnx.export(
        module.eval(), tuple(inputs.values()), str(file), input_names=list(inputs), output_names=outputs,
        dynamic_axes=free, dynamo=False, opset_version=17,
    )  # fmt: skip


def words(length: int) -> Any:
    return torch.randint(4, 200, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """optimum's layout: model.onnx beside the settings, no weights."""
    folder = write_clip(tmp_path_factory.mktemp("optimum") / "clip")
    checkpoint = load_checkpoint(folder)
    model = checkpoint.model
    model.set_attn_implementation("eager")
    ids = words(12)
    ids[:, -1] = checkpoint.text_spec().after[-1]
    inputs = {"input_ids": ids, "pixel_values": torch.randn(2, 3, SIZE, SIZE), "attention_mask": torch.ones_like(ids)}
    names = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
    trace(Both(model), inputs, names, folder / "model.onnx")
    return folder


@pytest.fixture
def optimum(together: Path, tmp_path: Path) -> Path:
    """A copy of `together` without weights."""
    return shutil.copytree(together, tmp_path / "clip", ignore=shutil.ignore_patterns("*.safetensors"))


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of transformers.js: onnx/text_model.onnx and onnx/vision_model.onnx, no weights beside them."""
    folder = write_siglip(tmp_path_factory.mktemp("js") / "siglip")
    model = load_checkpoint(folder).model
    trace(Text(model), {"input_ids": words(128)}, ["pooler_output"], folder / "onnx" / "text_model.onnx")
    pixels = torch.randn(2, 3, SIZE, SIZE)
    trace(Vision(model), {"pixel_values": pixels}, ["pooler_output"], folder / "onnx" / "vision_model.onnx")
    return folder


@pytest.fixture
def without_weights(apart: Path, tmp_path: Path) -> Path:
    return shutil.copytree(apart, tmp_path / "siglip", ignore=shutil.ignore_patterns("*.safetensors"))


def cosines(folder: Path, bundle: Path) -> Any:
    """Of the bundle's text embeddings with those of the checkpoint's weights."""
    wanted = reference(load_checkpoint(folder)).embed_texts(TEXTS)
    return (Embedder.open(bundle, threads=1).texts(TEXTS) * wanted).sum(axis=1)


def test_one_graph_is_cut_in_two_and_says_that_nothing_was_compared(
    together: Path, optimum: Path, tmp_path: Path
) -> None:
    report = export(optimum, preset("fp32"), tmp_path / "bundle", places=3)
    assert any("not compared with transformers: no weights" in note for note in report.notes)
    assert not [row for row in report.rows if row.section == "parity"]
    bundle = open_bundle(tmp_path / "bundle")
    assert verify_bundle(bundle).passed
    assert cosines(together, bundle.path).min() > 0.999999
    files = {c.kind: (c.file, c.output) for c in bundle.manifest.components.values()}
    assert files["vision"] == ("onnx/vision_encoder.onnx", "image_embeds")
    kept = onnx.load(bundle.component("text"))
    assert {one.name for one in kept.graph.input} == {"input_ids", "attention_mask"}
    assert len(bundle.manifest.source["files"]["model.onnx"]) == 64


def test_weights_beside_the_graphs_are_compared_with(together: Path, tmp_path: Path) -> None:
    report = export(together, preset("fp32"), tmp_path / "bundle", places=0)
    assert report.notes == ()
    parity = {row.name: row.value for row in report.rows if row.section == "parity"}
    assert set(parity) == {"pixels", "image tokens", "text embedding", "image embedding"}
    assert parity["text embedding"] > 0.999999


def test_two_graphs_are_copied_byte_by_byte(apart: Path, without_weights: Path, tmp_path: Path) -> None:
    report = export(without_weights, preset("int8"), tmp_path / "bundle", places=0)
    assert any("packed at fp32: the folder holds no int8 graphs" in note for note in report.notes)
    for ours, theirs in (("text_model", "text_model"), ("vision_encoder", "vision_model")):
        copied = (tmp_path / "bundle" / "onnx" / f"{ours}.onnx").read_bytes()
        assert copied == (without_weights / "onnx" / f"{theirs}.onnx").read_bytes()
    assert cosines(apart, tmp_path / "bundle").min() > 0.999999
    compared = export(apart / "onnx", preset("fp32"), tmp_path / "compared", places=0)
    assert [row.name for row in compared.rows if row.section == "parity"]


def test_with_weights_the_onnx_subfolder_is_not_packed(apart: Path, tmp_path: Path) -> None:
    """Built from the weights: they give better graphs, at every precision."""
    export(apart, preset("int8"), tmp_path / "bundle", places=0)
    assert open_bundle(tmp_path / "bundle").manifest.components["text"].file == "onnx/text_model_int8.onnx"


def test_a_named_precision_is_taken_where_it_is_there(without_weights: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    for stem in ("text_model", "vision_model"):
        file = without_weights / "onnx" / f"{stem}.onnx"
        quantize_dynamic(file, file.with_name(f"{stem}_quantized.onnx"), op_types_to_quantize=["MatMul"])
    report = export(without_weights, preset("int8"), tmp_path / "bundle", places=0)
    assert {c.precision for c in open_bundle(tmp_path / "bundle").manifest.components.values()} == {"int8"}
    assert not any("packed at" in note for note in report.notes)


def test_large_graphs_keep_their_data_beside_them(without_weights: Path, tmp_path: Path) -> None:
    file = without_weights / "onnx" / "text_model.onnx"
    model = onnx.load(file)
    onnx.save_model(model, str(file), save_as_external_data=True, location="weights.bin_of_it", size_threshold=0)
    export(without_weights, preset("fp32"), tmp_path / "bundle", places=0)
    assert (tmp_path / "bundle" / "onnx" / "text_model.onnx_data").is_file()
    (without_weights / "onnx" / "weights.bin_of_it").unlink()
    with pytest.raises(CheckpointError, match="can't be read whole"):
        export(without_weights, preset("fp32"), tmp_path / "other", places=0)


def rename_output(file: Path, name: str) -> None:
    model = onnx.load(file)
    old = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [name if out == old else out for out in node.output]
    model.graph.output[0].name = name
    onnx.save(model, file)


def test_unusable_folders_are_refused_with_the_remedy(without_weights: Path, optimum: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    graphs = without_weights / "onnx"

    def refused(match: str, folder: Path = without_weights, kind: type[Exception] = CheckpointError) -> None:
        with pytest.raises(kind, match=match):
            export(folder, preset("fp32"), out, places=0)
        assert not out.exists()

    (graphs / "vision_model.onnx").rename(graphs / "tower.onnx")
    refused("holds text_model.onnx, tower.onnx, but neither model.onnx nor .* optimum-cli export onnx")
    (graphs / "tower.onnx").rename(graphs / "vision_model.onnx")
    rename_output(graphs / "text_model.onnx", "last_hidden_state")
    refused("gives last_hidden_state, not text_embeds or pooler_output, the text embedding of siglip")
    (graphs / "text_model.onnx").write_bytes(b"no graph")
    refused("text_model.onnx is not an ONNX graph")
    (without_weights / "tokenizer.json").unlink()
    refused("lacks tokenizer.json beside its ONNX graphs")
    with pytest.raises(InputError, match="take no adapters"):
        export(optimum, preset("fp32"), out, adapters={"embed": tmp_path})
    with pytest.raises(CheckpointError, match="picture size of a finished ONNX graph is fixed"):
        export(optimum, Recipe("small", image=TokenBudget(image_size=24)), out)
    (optimum / "config.json").write_text(json.dumps({"model_type": "smolvlm"}))
    refused("only those of dual encoders", optimum)


def test_graphs_that_give_nothing_usable_are_refused(without_weights: Path, tmp_path: Path) -> None:
    file = without_weights / "onnx" / "text_model.onnx"
    model = onnx.load(file)
    for weight in model.graph.initializer:
        if weight.name.endswith("head.bias") or weight.name.endswith("final_layer_norm.bias"):
            zeros = np.full(onnx.numpy_helper.to_array(weight).shape, np.nan, np.float32)
            weight.CopyFrom(onnx.numpy_helper.from_array(zeros, weight.name))
    onnx.save(model, file)
    with pytest.raises(VerificationError, match="text embeddings that are not finite"):
        export(without_weights, preset("fp32"), tmp_path / "out", places=0)
