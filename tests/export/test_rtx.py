"""TensorRT-RTX compiles every graph of every family, without a GPU, and keeps the weights packed.

It parses as TensorRT 11 does. What it computes can't be seen here; onnxruntime's result of the same graph is compared
with the fp32 graph instead.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from every_graph import DECODERS, FAMILIES, PRECISIONS, decoder_graphs, family_parts, part_graph, wide_decoder

from edgegeo.errors import EngineError
from edgegeo.export.graph import Graph
from edgegeo.export.linear import Storage
from edgegeo.export.lint import SUBSETS, lint_file
from edgegeo.export.trunk import build_trunk
from edgegeo.recipe import DIALECTS
from edgegeo.runtime.engines.building import Settings, build_plan
from edgegeo.runtime.engines.library import Library, find_library
from edgegeo.runtime.engines.shapes import Limits, Profile, Span, decide, head_profiles, trunk_profiles

pytestmark = pytest.mark.trt
dialects = pytest.mark.parametrize("dialect", [one for one in DIALECTS.values() if one != "ort"])
COSINE = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.99, "int4": 0.8}
"""Smallest cosine of a precision with fp32, on random weights."""
SHARE = {"fp32": 1.0, "fp16": 0.5, "int8": 0.25, "int4": 0.125}
"""Of the bytes of the fp32 matrices; scales and what is not quantised come on top."""


@pytest.fixture(scope="module")
def library() -> Library:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install 'edgegeo[rtx]')")
    return find_library("tensorrt-rtx")


def ranges(kind: str) -> tuple[Profile, ...]:
    if kind == "trunk":
        return trunk_profiles(decide(Limits().at_most(2), 64))
    if kind == "head":
        return head_profiles(decide(Limits().at_most(4), 16))
    batch, length = Span(1, 1, 4), Span(1, 8, 16)
    return ({"batch": batch, "sequence": length, "patches": Span(4, 16, 64), "windows": Span(1, 2, 40)},)


def plan_bytes(library: Library, graph: Graph, kind: str, folder: Path) -> tuple[int, int]:
    """(bytes of the plan, bytes of the graph with its weights)."""
    file = folder / f"{kind}.onnx"
    graph.save(file)
    for target in ("tensorrt-modern",) if graph.modern else SUBSETS:
        assert lint_file(file, target) == ()
    built = build_plan(library, file, ranges(kind), Settings())
    return len(built.plan), sum(one.stat().st_size for one in folder.glob(f"{kind}.onnx*"))


@dialects
@pytest.mark.parametrize("family", FAMILIES)
def test_every_graph_compiles_and_computes(family: str, dialect: str, library: Library, tmp_path: Path) -> None:
    for kind, part in family_parts(family, tmp_path / family).items():
        # What the modern form computes is compared with the portable one.
        part_graph(part, "fp32").save(tmp_path / f"{kind}.onnx")
        wanted = computed(tmp_path / f"{kind}.onnx")
        for precision in PRECISIONS:
            graph = part_graph(part, precision, ranges=precision == "int8" and kind == "vision", dialect=dialect)
            folder = tmp_path / f"{kind}-{precision}"
            size, _ = plan_bytes(library, graph, kind, folder)
            assert size > 10_000
            got = computed(folder / f"{kind}.onnx")
            assert cosine(got, wanted) >= COSINE[precision], (kind, precision)


@dialects
@pytest.mark.parametrize("kind", DECODERS)
def test_weights_stay_packed(kind: str, dialect: str, library: Library, tmp_path: Path) -> None:
    """What a plan gets smaller by is what the graph gets smaller by: nothing was widened while compiling."""
    sizes = {}
    for precision, graph in decoder_graphs(kind, dialect):
        sizes[precision] = plan_bytes(library, graph, "trunk", tmp_path / precision)
    matrices = matrix_bytes(kind)
    for precision in ("fp16", "int8", "int4"):
        saved = [sizes["fp32"][at] - sizes[precision][at] for at in (0, 1)]
        assert saved[1] > 0.9 * (1 - SHARE[precision]) * matrices
        # Kernels of other types differ a little in size.
        assert saved[0] > saved[1] - 0.06 * matrices, (precision, sizes)


def test_a_graph_of_onnxruntime_is_refused_by_node(library: Library, tmp_path: Path) -> None:
    graph = build_trunk(wide_decoder("llama"), Storage("int8"))
    graph.save(tmp_path / "ort.onnx")
    with pytest.raises(EngineError, match=r"TensorRT-RTX \S+ refuses ort\.onnx \(.*edgegeo lint"):
        build_plan(library, tmp_path / "ort.onnx", trunk_profiles(decide(Limits().at_most(1), 64)), Settings())


def matrix_bytes(kind: str) -> float:
    """Of the float32 matrices of a wide decoder."""
    return float(sum(4 * p.numel() for p in wide_decoder(kind).layers.parameters() if p.ndim == 2))


def computed(file: Path) -> np.ndarray:
    """The first output of a graph for inputs that follow from its names and shapes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    free = {"batch": 2, "sequence": 8, "total": 8, "asked": 1, "past": 0, "patches": 16, "windows": 4}
    feeds: dict[str, Any] = {}
    for value in session.get_inputs():
        shape = [free[size] if isinstance(size, str) else size for size in value.shape]
        if value.type == "tensor(int64)":
            feeds[value.name] = integers(value.name, shape)
        else:
            kind = np.float16 if "float16" in value.type else np.float32
            feeds[value.name] = np.random.default_rng(len(value.name)).normal(size=shape).astype(kind)
    return np.asarray(session.run(None, feeds)[0])


def integers(name: str, shape: list[int]) -> np.ndarray:
    """Valid values of an integer input."""
    if name == "attention_mask":
        return np.ones(shape, np.int64)
    if name in ("positions", "image_blocks"):
        return np.zeros(shape, np.int64)
    count = int(np.prod(shape))
    if name == "window_slots":
        return np.where(np.arange(count) < 16, np.arange(count), -1).reshape(shape)
    return (np.arange(count) % 16).reshape(shape)


def cosine(got: np.ndarray, wanted: np.ndarray) -> float:
    a, b = got.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
