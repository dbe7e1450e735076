"""Matrices that change their precision while the graph runs compute at each what a graph of that precision computes."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from edgegeo.export.graph import FLOAT, Graph
from edgegeo.export.linear import Storage, linear
from edgegeo.export.switched import INPUT, LADDER

RNG = np.random.default_rng(5)
WEIGHT = RNG.normal(size=(64, 24)).astype(np.float32)
SECOND = RNG.normal(size=(24, 8)).astype(np.float32)
BIAS = RNG.normal(size=24).astype(np.float32)
X = RNG.normal(size=(2, 5, 64)).astype(np.float32)


def two(storages: tuple[Storage, Storage]) -> Graph:
    """x -> first -> second, and a third matrix over x, which may share its quantised form."""
    graph = Graph("two")
    x = graph.input("x", FLOAT, ["batch", "rows", 64])
    first = linear(graph, x, WEIGHT, BIAS, "first", storages[0])
    beside = linear(graph, x, WEIGHT[::-1], None, "beside", storages[0])
    total = graph.node("Add", [first, beside], "total")
    linear(graph, total, SECOND, None, "second", storages[1])
    graph.output("second", FLOAT, ["batch", "rows", 8])
    return graph


def run(graph: Graph, **more: Any) -> np.ndarray:
    session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X, **more})[0]


@pytest.mark.parametrize("base", ["int2", "int4", "int8"])
def test_every_rung_equals_a_graph_of_its_own(base: str) -> None:
    how = Storage(base, block_size=64, ranges={"first": (-4.0, 4.0)})
    switched = two((replace(how, ladder=LADDER),) * 2)
    every = ["int2", "int3", "int4", "int8", "int8-blocks", "fp16"]
    rungs = every[every.index(base) :]
    assert {name: list(sizes) for name, sizes in switched.ladders.items()} == dict.fromkeys(
        ("first", "beside", "second"), rungs
    )
    answers = []
    for first in range(len(rungs)):
        for second in range(len(rungs)):
            # onnxruntime's CPU multiplies fp16 matrices in float32.
            plain = ["fp32" if one == "fp16" else one for one in (rungs[first], rungs[second])]
            wanted = run(two((replace(how, precision=plain[0]), replace(how, precision=plain[1]))))
            got = run(switched, **{INPUT: np.array([first, first, second])})
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
            answers.append(got)
    assert all(np.abs(one - other).max() > 1e-3 for i, one in enumerate(answers) for other in answers[:i])


@pytest.mark.parametrize("precision", ["int2", "int3", "int4", "int8", "int8-blocks", "fp16"])
def test_sizes_are_those_of_the_graph_that_would_be_written(precision: str) -> None:
    switched = two((Storage("int2", block_size=64, ladder=LADDER),) * 2)
    plain = two((Storage(precision, block_size=64),) * 2)
    few = {"int2": 1, "int3": 2}.get(precision, 0)  # shapes of codes, which layers share
    found = sum(sizes[precision] for sizes in switched.ladders.values())
    assert 0 <= plain.weight_bytes - found <= few * 24 * 2


def test_a_matrix_beyond_float16_is_raised_to_float32() -> None:
    graph = Graph("one")
    linear(graph, graph.input("x", FLOAT, [1, 64]), WEIGHT * 1e6, None, "y", Storage("int8", ladder=LADDER))
    assert list(graph.ladders["y"]) == ["int8", "int8-blocks", "fp32"]


def test_layers_of_a_recipe_begin_higher() -> None:
    how = Storage("int4", block_size=64, layers={"c.first": "int8", "c.second": "fp16"}, component="c", ladder=LADDER)
    graph = two((how, how))
    assert {name: list(sizes) for name, sizes in graph.ladders.items()} == {
        "first": ["int8", "int8-blocks", "fp16"], "beside": ["int4", "int8", "int8-blocks", "fp16"], "second": ["fp16"]
    }  # fmt: skip
    assert np.isfinite(run(graph, **{INPUT: np.array([1, 2, 0])})).all()
