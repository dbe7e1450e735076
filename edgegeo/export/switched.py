"""Graphs whose matrices are told at run time at which precision to multiply: one session measures every mix of them.

Each matrix is stored at its recipe's precision and at every finer one of a ladder, each in a branch of an If node with
the very operators that an export would write. Only the branch that the input `rungs` names is computed.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, Component
from edgegeo.export import components
from edgegeo.export.components import Part, Ranges
from edgegeo.export.graph import INT64, Graph, divided_by, weights_to
from edgegeo.export.linear import BITS, Array, Storage, linear
from edgegeo.recipe import PRECISIONS, Recipe
from edgegeo.runtime import Model

LADDER = ("int3", "int4", "int8", "int8-blocks", "fp16")
"""What a matrix may be raised to, in order of bytes. Blocks of 8 bits also round activations block by block, which
outliers in single channels ask for; fp16 rounds a weight by 5e-4 of itself at most, in half the room of fp32."""
INPUT = "rungs"
"""Input (matrices,) int64: for each matrix, in the order of `Graph.ladders`, how many rungs above its recipe it is."""
HALF_MAX = float(np.finfo(np.float16).max)

Mix = Mapping[str, str]
"""Matrix, named COMPONENT.LAYER -> precision; matrices it leaves out stay at their recipe's."""


def switched_linear(graph: Graph, x: str, weight: Array, bias: Array | None, name: str, storage: Storage) -> str:
    """Emit y = x W + b at the precision that `rungs` names; arguments as for `linear`, in the ort dialect.

    onnxruntime can't optimise the trt dialect's DequantizeLinear where its weights lie outside the branch.
    """
    rungs = _rungs(weight, storage.of(name), storage.ladder)
    number = len(graph.ladders)
    sizes = graph.ladders.setdefault(name, {})
    if not number:
        graph.input(INPUT, INT64, ["matrices"])
    alone = replace(storage, ladder=(), layers={}, wide=True)

    def at(precision: str) -> str:
        before = graph.weight_bytes
        # onnxruntime's CPU widens float16 matrices when it loads them, so these are what it would multiply.
        stored = "fp32" if precision == "fp16" else precision
        out = linear(graph, x, weight, bias, name, replace(alone, precision=stored))
        taken = graph.weight_bytes - before
        sizes[precision] = taken - _spared(weight, precision, storage.block_size)
        return out

    def choose(index: int, into: str) -> str:
        wanted = graph.integers(f"rung_{index}", index)
        here = graph.node("Equal", [chosen, wanted], f"{name}.is_{index}")
        low = graph.branch(f"{name}.{rungs[index]}", lambda: at(rungs[index]), f"@{rungs[index]}")
        last = index == len(rungs) - 2
        suffix = f"@{rungs[index + 1]}" if last else f"@{index + 1}"
        high = graph.branch(f"{into}.above", lambda: at(rungs[-1]) if last else choose(index + 1, name), suffix)
        return graph.node("If", [here], into, then_branch=low, else_branch=high)

    if len(rungs) == 1:
        return at(rungs[0])
    chosen = graph.node("Gather", [INPUT, graph.integers(f"matrix_{number}", number)], f"{name}.rung")
    return choose(0, name)


def _rungs(weight: Array, base: str, ladder: tuple[str, ...]) -> tuple[str, ...]:
    """The base and every finer precision; fp32 instead of fp16 for a matrix that float16 can't hold."""
    finer = [one for one in ladder if PRECISIONS.index(one) < PRECISIONS.index(base)]
    if "fp16" in finer and not float(np.abs(weight).max(initial=0.0)) <= HALF_MAX:
        finer[finer.index("fp16")] = "fp32"
    return (base, *finer)


def _spared(weight: Array, precision: str, block_size: int) -> int:
    """Bytes that an export takes less for a matrix (K, N) than these graphs, where both compute the same."""
    if precision == "fp16":
        return 2 * weight.size
    padded = -(-weight.shape[0] // block_size) * block_size * weight.shape[1]
    return padded * max(4 - BITS.get(precision, 4), 0) // 8


def write_switched(part: Part, recipe: Recipe, folder: Path, ranges: Ranges) -> tuple[Component, dict[str, Any]]:
    """Build a part with every rung and save it; its manifest entry, and layer -> precision -> bytes."""
    file = f"onnx/{part.name}.onnx"
    how = components.storage(part.kind, recipe, ranges.get(part.name), part.name)
    with divided_by(how.factors), weights_to(folder / file):
        graph = components.build(part, replace(how, ladder=LADDER), recipe.embeddings)
    graph.save(folder / file)
    output = "image_embeds" if part.family.text and part.kind == "vision" else ""
    return Component(part.kind, file, how.precision, output), graph.ladders


class SwitchedModel(Model):
    """A model on switched graphs; `mix` says what it computes from then on."""

    def __init__(self, bundle: Bundle, ladders: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
        """ladders: component -> layer -> precision -> bytes, the recipe's precision first."""
        super().__init__(bundle)
        self.ladders = ladders
        self._rungs = {name: np.zeros(len(layers), np.int64) for name, layers in ladders.items()}
        self._switched: dict[str, _Switched] = {}

    def mix(self, precisions: Mix) -> None:
        """Compute with these precisions; KeyError or ValueError for a matrix or rung there is not."""
        for name, layers in self.ladders.items():
            wanted = [precisions.get(f"{name}.{layer}", next(iter(sizes))) for layer, sizes in layers.items()]
            found = [list(sizes).index(one) for sizes, one in zip(layers.values(), wanted, strict=True)]
            self._rungs[name][:] = found  # in place: bindings keep its address

    def chosen(self, component: str) -> bytes:
        """What identifies the present mix of a component."""
        return self._rungs[component].tobytes()

    def session(self, component: str) -> Any:
        """The session of a component, which feeds itself the mix."""
        if component not in self._switched:
            self._switched[component] = _Switched(super().session(component), self._rungs[component])
        return self._switched[component]


class _Switched:
    """An onnxruntime session with one more input than its caller knows."""

    def __init__(self, session: Any, rungs: NDArray[np.int64]) -> None:
        self._session = session
        self._rungs = rungs

    def run(self, outputs: Any, feeds: Mapping[str, Any]) -> Any:
        return self._session.run(outputs, {**feeds, INPUT: self._rungs})

    def io_binding(self) -> Any:
        binding = self._session.io_binding()
        binding.bind_cpu_input(INPUT, self._rungs)
        return binding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
