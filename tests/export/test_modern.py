"""The trt-modern dialect: operators of opset 23 instead of chains of older ones, and the same numbers.

onnxruntime is the oracle here, and transformers; TensorRT-RTX compiles the same graphs in test_rtx.py.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from engine_simulator import simulated_tensorrt
from every_graph import family_parts, part_graph
from tiny_decoders import HIDDEN, KINDS, LAYERS, Runner, make_decoder, torch_hidden
from torch.nn import functional

from edgegeo.bundle import open_bundle
from edgegeo.errors import DeviceError
from edgegeo.export import blocks
from edgegeo.export.graph import FLOAT, Graph
from edgegeo.export.linear import Storage
from edgegeo.export.pipeline import export_source
from edgegeo.export.source import open_source
from edgegeo.export.trunk import build_trunk
from edgegeo.recipe import preset
from edgegeo.runtime.engines.compiling import Request, compile_bundle
from edgegeo.runtime.engines.shapes import Limits
from edgegeo.runtime.verify import verify_bundle

RNG = np.random.default_rng(4)
HALF_COSINE = 0.9999


def cosine(got: np.ndarray, wanted: np.ndarray) -> float:
    a, b = got.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op_type for node in graph.model().graph.node)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_in_half_precision_goes_on_from_its_cache(kind: str) -> None:
    """A padded prompt of two rows, then one position a row: as transformers has them, and as the portable form."""
    model, embeds = make_decoder(kind), RNG.normal(size=(2, 13, HIDDEN)).astype(np.float32)
    expected = torch_hidden(model, embeds)
    caches = {}
    for dialect in ("trt", "trt-modern"):
        graph = build_trunk(model, Storage("fp16"), dialect)
        runner = Runner(graph)
        first, past = runner.run(embeds[:, :12], np.ones((2, 12), np.int64))
        last, past = runner.run(embeds[:, 12:], np.ones((2, 13), np.int64), past=past)
        assert cosine(np.concatenate([first, last], axis=1), expected) > HALF_COSINE
        padded, _ = runner.run(embeds, (np.arange(13) < [[13], [7]]).astype(np.int64))
        assert cosine(padded[1, :7], expected[1, :7]) > HALF_COSINE
        caches[dialect] = past
    used = operators(graph)
    assert used["Attention"] == LAYERS
    assert used["RotaryEmbedding"] == 2 * LAYERS
    assert used["RMSNormalization"] >= 2 * LAYERS + 1
    assert not {"Softmax", "Expand", "ReduceMean"} & set(used) or kind == "gemma3"
    for name, value in caches["trt"].items():
        np.testing.assert_allclose(caches["trt-modern"][name], value, atol=2e-2)


def test_attention_without_kernels_stays_in_older_operators() -> None:
    """float32, and sizes of a head that TensorRT's own attention would pad or refuse."""
    exact = operators(build_trunk(make_decoder("llama"), Storage(), "trt-modern"))
    assert not exact["Attention"]
    assert exact["Softmax"] == LAYERS
    small = operators(build_trunk(make_decoder("llama", head_dim=12), Storage("fp16"), "trt-modern"))
    assert not small["Attention"]
    few = make_decoder("llama", num_attention_heads=2, num_key_value_heads=1)
    assert not operators(build_trunk(few, Storage("fp16"), "trt-modern"))["Attention"]
    assert [size for size in (8, 16, 20, 72, 80, 128, 256, 264) if size in blocks.FUSED_HEADS] == [16, 72, 80, 128, 256]


@pytest.mark.parametrize("biased", [False, True])
def test_full_attention_in_half_precision(biased: bool) -> None:
    feeds = {name: RNG.normal(size=(2, 9, 4 * 16)).astype(np.float32) for name in ("query", "key", "value")}
    bias = None
    if biased:
        feeds["bias"] = np.where(RNG.random((2, 1, 9, 9)) < 0.3, -60000.0, 0.5).astype(np.float32)
        bias = torch.from_numpy(feeds["bias"])
    parts = [torch.from_numpy(feeds[n]).view(2, 9, 4, 16).transpose(1, 2) for n in ("query", "key", "value")]
    expected = functional.scaled_dot_product_attention(*parts, attn_mask=bias, scale=0.3).transpose(1, 2)
    graph = Graph("attention", "trt-modern", "fp16")
    for name, value in feeds.items():
        graph.input(name, FLOAT, value.shape)
    blocks.full_attention(graph, "query", "key", "value", "y", 4, 16, 0.3, "bias" if biased else "")
    graph.output("y", FLOAT, [2, 9, 64])
    assert operators(graph)["Attention"] == 1
    session = onnxruntime.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, feeds)[0], expected.reshape(2, 9, 64).numpy(), atol=5e-3)


def test_graphs_say_their_opset(tmp_path: Path) -> None:
    part = family_parts("siglip", tmp_path)["vision"]
    for precision in ("fp32", "int4"):
        (opset,) = part_graph(part, precision, dialect="trt-modern").model().opset_import
        assert (opset.domain, opset.version) == ("", 23)


@pytest.mark.usefixtures("simulated_gpu")
def test_a_bundle_is_verified_compiled_and_refused_by_an_older_tensorrt(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEGEO_HOME", str(tmp_path / "home"))
    export_source(open_source(checkpoint, method="slq"), preset("int8", "tensorrt-modern"), tmp_path / "tiny", places=0)
    bundle = open_bundle(tmp_path / "tiny")
    assert (bundle.manifest.target, bundle.manifest.dialect) == ("tensorrt-modern", "trt-modern")
    request = Request(Limits().at_most(4))
    with pytest.raises(DeviceError, match=r"TensorRT 10\.3\.0\.30 lacks.*10\.15 or newer.*--target tensorrt"):
        compile_bundle(bundle, request, 1e6)
    newer: Any = simulated_tensorrt("10.16.2.1")
    monkeypatch.setitem(sys.modules, "tensorrt", newer)
    report = compile_bundle(bundle, request, 1e6)
    assert {check.name for check in report.checks} >= {"embed_text", "embed_image", "yes_no_margin", "answer_ids"}
    assert verify_bundle(bundle, provider="tensorrt").passed
