"""The float graphs of an fp32 bundle, with the input of every matrix as a further output."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from edgegeo.bundle import Bundle
from edgegeo.calibration.calibrate import MOMENTS, Opened, Piece, Plan, calibrate
from edgegeo.calibration.samples import Sample, SampleManifest
from edgegeo.calibration.statistics import Calibration
from edgegeo.errors import InputError
from edgegeo.progress import Progress, silent
from edgegeo.runtime import Generator, Model, open_session

FLOAT = 1
WEIGHT = ".weight"


class BundleGraphs:
    """Every component in one piece. InputError for a bundle that is quantised: its activations are not the model's."""

    def __init__(self, bundle: Bundle) -> None:
        coarse = sorted({p for part in bundle.manifest.components.values() for p in part.precisions} - {"fp32"})
        if coarse or bundle.manifest.dialect != "ort":
            said = ", ".join(coarse) or f"for {bundle.manifest.target}"
            raise InputError(
                f"{bundle.path} is {said}: ranges are taken from float graphs; name the checkpoint, or a bundle made "
                "with edgegeo export --fp32"
            )
        self.bundle = bundle

    def pieces(self, component: str) -> Sequence[Piece]:
        """The component as a whole."""
        kind = self.bundle.manifest.components[component].kind
        layers = self.bundle.decoder.layers if kind == "trunk" else 0
        return (Piece(partial(self._open, component), 0, layers),)

    @contextmanager
    def _open(self, component: str) -> Iterator[Opened]:
        path = self.bundle.component(component)
        data, watched = expose(path)
        yield Opened(open_session(path, graph=data), watched)


def expose(path: Path) -> tuple[bytes, dict[str, str]]:
    """A float graph's file with further outputs, and layer -> the one that its matrix multiplies.

    Weights outside the file stay there. A matrix is an initialiser, `LAYER.weight` in edgegeo's own graphs, that a
    MatMul multiplies with.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    stored = {one.name for one in graph.initializer if len(one.dims) == 2}
    watched = {
        node.input[1].removesuffix(WEIGHT): node.input[0]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in stored
    }
    shown: set[Any] = {one.name for one in (*graph.output, *graph.input)}
    for name in dict.fromkeys(watched.values()):
        if name not in shown:
            graph.output.append(onnx.helper.make_tensor_value_info(name, FLOAT, None))
    return model.SerializeToString(), watched


def calibrate_bundle(
    graphs: BundleGraphs, samples: Sequence[Sample], told: SampleManifest, out: Path,
    moments: tuple[str, ...] = MOMENTS, random: bool = False, progress: Progress = silent,
) -> Calibration:  # fmt: skip
    """Record an fp32 bundle's own graphs; what it generates is read back as what an answer looks like."""
    model = Model(graphs.bundle)
    generator = Generator(model) if graphs.bundle.manifest.roles.generate is not None else None
    answers: dict[str, str] = {}

    def answer(sample: Sample) -> str:
        if generator is None or not sample.photo:
            return ""
        if sample.id not in answers:
            answers[sample.id] = generator.answer(sample.photo).text
        return answers[sample.id]

    source = graphs.bundle.manifest.source
    plan = Plan(
        graphs.bundle.manifest.name, identity(source), samples, told, answer, random, moments,
        tools=graphs.bundle.manifest.tools,
    )  # fmt: skip
    return calibrate(model, graphs, plan, out, progress)


def identity(facts: Mapping[str, Any]) -> str:
    """Identifies a checkpoint and its adapters by their files, as a manifest's `source` tells them."""
    told = {name: facts.get(name) for name in ("files", "adapters")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
