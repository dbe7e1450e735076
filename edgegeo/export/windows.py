"""The exact graphs of a model too large for an exact bundle, proved part by part.

The vision tower, a few decoder layers at a time and the head are each built in float32 from the real weights, fed with
what the torch modules are fed on a real prompt, compared and deleted. Disk and memory hold one part at a time.
"""

import copy
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, Segment
from edgegeo.calibration.samples import Sample
from edgegeo.export import components
from edgegeo.export.components import Layout, Part
from edgegeo.export.graph import weights_to
from edgegeo.export.head import build_head
from edgegeo.export.linear import Storage
from edgegeo.export.parity import COSINE, Expected, Stage
from edgegeo.export.source import Source
from edgegeo.export.trunk import build_trunk
from edgegeo.models.prompts import fill_ids
from edgegeo.models.reference import Reference
from edgegeo.progress import Progress
from edgegeo.runtime import ImageTokens, Model, open_session
from edgegeo.runtime.tokens import fill
from edgegeo.runtime.trunk import Trunk, TrunkInput

WINDOW_BYTES = 1 << 30
"""Decoder layers are taken together up to this size in float32."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Watched:
    """What the torch decoder computed on one prompt."""

    fed: TrunkInput
    """The prompt, as the runtime's trunk is fed."""
    states: list[Floats]
    """states[i] (1, S, hidden): what layer i is fed; the last entry: what the last layer gives."""
    final: Floats
    """(1, S, hidden) after the final norm."""


def prove(
    source: Source, made: Bundle, plan: Layout, expected: Expected, sample: Sample, folder: Path, progress: Progress
) -> tuple[Stage, ...]:
    """Stages of the exact graphs of every part; `made` is any bundle of the source, asked for its prompts only.

    folder: where a part may stand while it is checked. Adapted parts are compared with the attached adapter.
    """
    stages, dialect = [], made.manifest.dialect
    for index, (name, part) in enumerate(plan.parts.items()):
        progress("prove fp32", index, len(plan.parts))
        role = next(role for role, kinds in plan.roles.items() if name in kinds.values())
        reference = source.roles[role].reference
        if part.kind == "vision":
            stages.append(_vision(part, reference, expected, folder, dialect))
            continue
        if part.kind == "text":
            stages.append(_text(part, reference, expected, sample, folder, dialect))
            continue
        watched = watch(reference, made, role, expected, sample)
        if part.kind == "trunk":
            stages.append(_windows(part, reference, watched, made, folder))
        else:
            stages.append(_head(part, reference, watched, folder, dialect))
    progress("prove fp32", len(plan.parts), len(plan.parts))
    return tuple(stages)


def watch(reference: Reference, made: Bundle, role: str, expected: Expected, sample: Sample) -> Watched:
    """Run the torch model on the role's prompt with the sample's picture and text, and keep what its layers see."""
    import torch

    prompt = _prompt(made, role)
    model, picture = Model(made, 1), expected.pictures[0]
    texts = [model.tokenizer.encode(sample.text)]
    tokens = ImageTokens(expected.features[0], picture.layout, picture.grid)
    fed = model.assemble([fill(prompt, texts)], [[tokens]])
    placeholder = reference.family.image_token_id(reference.checkpoint.config)
    ids = torch.tensor([fill_ids(prompt, placeholder, [picture.layout], texts)])
    states: list[Floats] = []
    layers = reference.family.parts(reference.model).text.layers

    def before(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = args[0] if args else named["hidden_states"]
        states.append(given.detach().float().numpy())

    def after(_: Any, __: Any, out: Any) -> None:
        states.append((out[0] if isinstance(out, tuple) else out).detach().float().numpy())

    hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    hooks.append(layers[-1].register_forward_hook(after))
    try:
        with torch.no_grad():
            final = reference.family.hidden(reference.model, ids, [picture]).float().numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return Watched(fed, states, final)


def window(text: Any, first: int, past: int) -> Any:
    """A text model of some of another's layers: the same modules, and a configuration of their number."""
    import torch

    view = copy.copy(text)
    view.__dict__ = dict(text.__dict__)
    view._modules = dict(text._modules)
    view._modules["layers"] = torch.nn.ModuleList(list(text.layers)[first:past])
    view.config = copy.deepcopy(text.config)
    view.config.num_hidden_layers = past - first
    if getattr(text.config, "layer_types", None):
        view.config.layer_types = list(text.config.layer_types)[first:past]
    return view


def spans(text: Any) -> list[tuple[int, int]]:
    """(first, past) of windows of neighbouring layers, each below `WINDOW_BYTES` in float32 unless one is larger."""
    sizes = [4 * sum(p.numel() for p in layer.parameters()) for layer in text.layers]
    out, first, total = [], 0, 0
    for index, size in enumerate(sizes):
        if index > first and total + size > WINDOW_BYTES:
            out.append((first, index))
            first, total = index, 0
        total += size
    return [*out, (first, len(sizes))]


def _vision(part: Part, reference: Reference, expected: Expected, folder: Path, dialect: str) -> Stage:
    import torch

    worst = 1.0
    with _opened(folder, part.name, lambda: components.build(part, Storage(), dialect=dialect)) as session:
        for picture in expected.pictures:
            with torch.no_grad():
                wanted = reference.family.image_features(reference.model, picture).float().numpy()
            got = session.run(None, picture.inputs)[0].reshape(wanted.shape)
            worst = float(np.minimum(worst, least_cosine(got, wanted)))  # unlike min, keeps NaN
    return Stage(f"{part.name}, fp32 graph", "cosine", worst, COSINE["fp32"])


def _text(part: Part, reference: Reference, expected: Expected, sample: Sample, folder: Path, dialect: str) -> Stage:
    """The text tower of a dual encoder, on the first sample's description."""
    ids = reference.token_ids(sample.text)
    with _opened(folder, part.name, lambda: components.build(part, Storage(), dialect=dialect)) as session:
        got = session.run(None, {"input_ids": ids})[0]
    return Stage(f"{part.name}, fp32 graph", "cosine", least_cosine(got, expected.embed_text[:1]), COSINE["fp32"])


def _windows(part: Part, reference: Reference, watched: Watched, made: Bundle, folder: Path) -> Stage:
    import torch

    text, norm = part.modules.text, reference.family.parts(reference.model).text.norm
    everywhere, dialect = np.arange(watched.fed.embeds.shape[1])[None], made.manifest.dialect
    worst = 1.0
    for first, past in spans(text):
        spec = replace(made.decoder, layers=past - first)
        view = window(text, first, past)
        fed = replace(watched.fed, embeds=watched.states[first])
        with _opened(folder, part.name, lambda view=view: build_trunk(view, Storage(), dialect)) as session:
            got = Trunk(session, spec, dialect).hidden(fed, everywhere)
        with torch.no_grad():
            wanted = norm(torch.from_numpy(watched.states[past])).float().numpy()
        worst = float(np.minimum(worst, least_cosine(got, wanted)))  # unlike min, keeps NaN
    return Stage(f"{part.name}, fp32 graph", "cosine", worst, COSINE["fp32"])


def _head(part: Part, reference: Reference, watched: Watched, folder: Path, dialect: str) -> Stage:
    import torch

    states = watched.final[:, -4:]
    with torch.no_grad():
        wanted = reference.family.parts(reference.model).head(torch.from_numpy(states)).float().numpy()
    with _opened(folder, part.name, lambda: build_head(part.modules.head, Storage(), dialect)) as session:
        got = session.run(["logits"], {"hidden_states": states})[0]
    return Stage(f"{part.name}, fp32 graph", "cosine", least_cosine(got, wanted), COSINE["fp32"])


@contextmanager
def _opened(folder: Path, name: str, build: Any) -> Iterator[Any]:
    """A session on a graph that is gone afterwards."""
    place = folder / "proof"
    try:
        with weights_to(place / f"{name}.onnx"):
            graph = build()
        graph.save(place / f"{name}.onnx")
        yield open_session(place / f"{name}.onnx")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def least_cosine(got: Any, wanted: Any) -> float:
    """The smallest cosine of corresponding rows (..., D); NaN where a row is."""
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(np.min((a * b).sum(axis=-1) / np.maximum(norms, 1e-30)))


def _prompt(made: Bundle, role: str) -> Sequence[Segment]:
    roles = made.manifest.roles
    if role == "embed" and roles.embed is not None:
        return roles.embed.image_prompt
    if role == "rerank" and roles.rerank is not None:
        return roles.rerank.text_prompt
    assert roles.generate is not None
    return roles.generate.prompt
