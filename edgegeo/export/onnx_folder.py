"""Dual encoders that another tool exported to ONNX (optimum, transformers.js), packed into a bundle as they are.

Their graphs are copied, not rebuilt: one graph with both towers is cut in two, names are mapped in the manifest.
Without weights beside them there is nothing to compare them with, and the report says so.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgegeo.bundle import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Bundle,
    Component,
    Manifest,
    Roles,
    check_target,
    sha256_of,
    staging,
)
from edgegeo.calibration import readable
from edgegeo.errors import CheckpointError, EdgegeoError, VerificationError, one_line
from edgegeo.evaluate import Scene, planet_scenes
from edgegeo.export import pack, parity
from edgegeo.export.components import STEMS
from edgegeo.export.conclude import Staged, conclude
from edgegeo.export.pipeline import PARITY_SAMPLES
from edgegeo.export.report import ExportReport
from edgegeo.export.source import RoleSource, Source
from edgegeo.models.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_tokenizer,
    read_image_spec,
    read_json,
    read_settings,
    refuse_pickles,
)  # fmt: skip
from edgegeo.models.family import find_family
from edgegeo.models.reference import reference
from edgegeo.progress import Progress, silent
from edgegeo.recipe import Recipe, TokenBudget
from edgegeo.runtime import Model
from edgegeo.runtime.dual_encoder import DualEncoder
from edgegeo.runtime.tokens import fill

TOWERS = {"text": "text_model", "vision": "vision_model"}
WHOLE = "model"
"""File names of the towers apart (transformers.js) and together (optimum), before the suffix of their precision."""
SUFFIXES = {"": "fp32", "_fp16": "fp16", "_int8": "int8", "_quantized": "int8", "_q4": "int4"}
OUTPUTS: dict[str, dict[str, tuple[str, ...]]] = {
    "clip": {"text": ("text_embeds",), "vision": ("image_embeds",)},
    "siglip": {"text": ("text_embeds", "pooler_output"), "vision": ("image_embeds", "pooler_output")},
}
"""Outputs that are embeddings, by family; CLIP's pooler_output is not yet projected."""
INPUTS: dict[str, dict[str, int]] = {"text": {"input_ids": 7, "attention_mask": 7}, "vision": {"pixel_values": 1}}
"""Inputs that the runtime feeds, and their ONNX types (int64, float32); the first is needed."""
REMEDY = "export it again with: optimum-cli export onnx --task feature-extraction"


@dataclass(frozen=True)
class Tower:
    """One tower in a file that was found."""

    kind: str
    file: Path
    precision: str
    inputs: dict[str, tuple[Any, ...]]
    """Name -> shape; what is not a number is free."""
    output: str
    alone: bool
    """Whether the file holds nothing else."""


def onnx_home(path: Path) -> tuple[Path, Path] | None:
    """(folder of the graphs, folder of config.json) where `path` is to be packed; None for a checkpoint of weights.

    Graphs in the named folder itself are meant; those in its onnx/ only where it holds no weights to build from.
    """
    if (path / MANIFEST_NAME).is_file():
        raise CheckpointError(f"{path} is a bundle already; an export starts from a checkpoint")
    weights = any(path.glob("*.safetensors"))
    if any(path.glob("*.onnx")):
        home = path if (path / "config.json").is_file() else path.parent
        # Stray graphs beside the weights of another kind of model don't keep it from being built.
        stray = weights and read_json(home / "config.json").get("model_type") not in OUTPUTS
        return None if stray else (path, home)
    return (path / "onnx", path) if any((path / "onnx").glob("*.onnx")) and not weights else None


def export_onnx_folder(
    path: Path, recipe: Recipe, out: Path, places: int = 1000, progress: Progress = silent
) -> ExportReport:
    """Pack the ONNX graphs of a dual encoder. CheckpointError for a folder or graphs that can't be used."""
    started = time.monotonic()
    check_target(out)
    found = onnx_home(path)
    if found is None:
        raise CheckpointError(f"{path} holds no ONNX graphs; {REMEDY}")
    graphs, home = found
    if recipe.image != TokenBudget():
        raise CheckpointError("the picture size of a finished ONNX graph is fixed; export the checkpoint's safetensors")
    progress("load", 0, 1)
    source = _describe(home)
    towers = find_towers(graphs, source.family.name, recipe.vision)
    _check_shapes(towers, source)
    progress("load", 1, 1)
    samples = readable(planet_scenes(recipe.calibration_samples, "validation", progress=progress), source.reads)
    with staging(out) as folder, staging(out) as final:
        made = _stage(source, towers, recipe, folder)
        made, stages, notes = _compare(made, source, samples[:PARITY_SAMPLES])
        used = {tower.precision for tower in towers}
        if used != {recipe.vision}:
            notes = (*notes, f"packed at {', '.join(sorted(used))}: the folder holds no {recipe.vision} graphs")
        return conclude(Staged(made, None, stages, notes=notes), samples, places, final, out, started, progress)


def find_towers(graphs: Path, family: str, precision: str) -> tuple[Tower, Tower]:
    """Text and vision tower among the graphs of a folder, at `precision` where it is there, else at fp32."""
    wanted = [suffix for suffix, stored in SUFFIXES.items() if stored == precision]
    for suffix in [*wanted, ""]:
        apart = {kind: graphs / f"{stem}{suffix}.onnx" for kind, stem in TOWERS.items()}
        whole = graphs / f"{WHOLE}{suffix}.onnx"
        if all(file.is_file() for file in apart.values()):
            return (
                _tower("text", apart["text"], family, SUFFIXES[suffix]),
                _tower("vision", apart["vision"], family, SUFFIXES[suffix]),
            )
        if whole.is_file():
            return _tower("text", whole, family, SUFFIXES[suffix]), _tower("vision", whole, family, SUFFIXES[suffix])
    names = ", ".join(sorted(file.name for file in graphs.glob("*.onnx"))[:4])
    raise CheckpointError(
        f"{graphs} holds {names}, but neither model.onnx nor text_model.onnx with vision_model.onnx; {REMEDY}"
    )


def _tower(kind: str, file: Path, family: str, precision: str) -> Tower:
    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except Exception as error:  # protobuf raises its own kinds for a damaged file
        raise CheckpointError(f"{file} is not an ONNX graph ({one_line(error)}); download or export it again") from None
    types = {one.name: one.type.tensor_type for one in graph.input}
    output = next((name for name in OUTPUTS[family][kind] if any(o.name == name for o in graph.output)), None)
    if output is None:
        has = ", ".join(o.name for o in graph.output)
        needed = " or ".join(OUTPUTS[family][kind])
        raise CheckpointError(f"{file} gives {has}, not {needed}, the {kind} embedding of {family}; {REMEDY}")
    known, needed = INPUTS[kind], next(iter(INPUTS[kind]))
    mine = {name: kinds for name, kinds in types.items() if name in known}
    alone = set(types) == set(mine)
    wrong = [name for name, one in mine.items() if one.elem_type != known[name]]
    if needed not in mine or wrong or not (alone or file.stem.startswith(WHOLE)):
        raise CheckpointError(
            f"{file} reads {', '.join(f'{n} ({_type(t)})' for n, t in types.items())}; the runtime feeds "
            f"{', '.join(known)} as {'int64' if kind == 'text' else 'float32'} only; {REMEDY}"
        )
    shapes = {
        name: tuple(d.dim_value if d.HasField("dim_value") else None for d in one.shape.dim)
        for name, one in mine.items()
    }
    return Tower(kind, file, precision, shapes, output, alone and len(graph.output) == 1)


def _describe(home: Path) -> Checkpoint:
    """The folder without its weights."""
    from transformers import AutoConfig

    refuse_pickles(home)
    lacking = [name for name in ("config.json", "tokenizer.json", "preprocessor_config.json") if not _has(home, name)]
    if lacking:
        raise CheckpointError(f"{home} lacks {', '.join(lacking)} beside its ONNX graphs; copy it from the checkpoint")
    kind = read_json(home / "config.json").get("model_type")
    family = find_family(kind)
    if not family.text:
        raise CheckpointError(
            f"{home} holds ONNX graphs of a '{kind}' model; only those of dual encoders (clip, siglip) are packed as "
            "they are, export this one from its safetensors"
        )
    config, tokenizer = AutoConfig.from_pretrained(home, local_files_only=True), load_tokenizer(home)
    image = read_image_spec(home, family, config, tokenizer)
    return Checkpoint(home, family, config, None, tokenizer, image, read_settings(home, tokenizer, family), ())


def _has(home: Path, name: str) -> bool:
    return (home / name).is_file()


def _check_shapes(towers: Sequence[Tower], source: Checkpoint) -> None:
    """CheckpointError for fixed sizes that the family's preprocessing does not make."""
    text, vision = towers
    side = vision.inputs["pixel_values"][-1]
    if side is not None and side != source.image.size:
        raise CheckpointError(
            f"{vision.file} reads {side}-pixel pictures, preprocessor_config.json makes {source.image.size}; "
            "use the files of one checkpoint"
        )
    for tower in (text, vision):
        if next(iter(tower.inputs.values()))[0] not in (None, 0):
            raise CheckpointError(f"{tower.file} has a fixed batch; export it with a free (dynamic) batch axis")


def _stage(source: Checkpoint, towers: Sequence[Tower], recipe: Recipe, folder: Path) -> Bundle:
    """Everything but golden outputs and accuracy card."""
    (folder / "onnx").mkdir()
    components, hashes = {}, {}
    for tower in towers:
        name = f"onnx/{STEMS[tower.kind]}{tower.file.stem.removeprefix(WHOLE).removeprefix(TOWERS[tower.kind])}.onnx"
        _write(tower, folder / name)
        components[tower.kind] = Component(tower.kind, name, tower.precision, tower.output)
        hashes[tower.file.name] = sha256_of(tower.file)
    pack.copy_files(Source(source, {}), folder)
    spec = source.text_spec()
    fixed = towers[0].inputs["input_ids"][-1]
    if fixed is not None:
        spec = replace(spec, pad_to=fixed, longest=min(spec.longest, fixed - len(spec.before) - len(spec.after)))
    name = source.path.resolve().name
    facts = {"checkpoint": name, "files": hashes, "adapters": {}, "planet_seed": source.settings.planet_seed}
    return pack.draft(
        folder,
        Manifest(
            schema=SCHEMA_VERSION, name=f"{name}-{recipe.name}", family=source.family.name, dialect="ort",
            target=recipe.target, components=components, image=source.image, trunk=None,
            roles=Roles(embed=pack.dual_role(spec, "vision", "text")), tokenizer="tokenizer.json", embed_tokens=None,
            golden="golden.npz", accuracy={}, calibration={}, source=facts, tools=pack.tool_versions(),
        ),
    )  # fmt: skip


def _write(tower: Tower, file: Path) -> None:
    """Copy a graph byte by byte where it is one tower in one file; else write the tower's part of it."""
    try:
        bare = onnx.load(str(tower.file), load_external_data=False)
        outside = any(t.data_location == onnx.TensorProto.EXTERNAL for t in bare.graph.initializer)
        if tower.alone and not outside:
            shutil.copyfile(tower.file, file)
            return
        model = onnx.load(str(tower.file))
        if not tower.alone:
            model = onnx.utils.Extractor(model).extract_model(list(tower.inputs), [tower.output])
        onnx.save_model(
            model, str(file), save_as_external_data=outside, all_tensors_to_one_file=True, location=f"{file.name}_data"
        )
    except Exception as error:  # onnx raises many kinds: a missing data file, a link, a damaged graph
        raise CheckpointError(f"{tower.file} can't be read whole ({one_line(error)}); export it again") from None


def _compare(
    made: Bundle, source: Checkpoint, samples: Sequence[Scene]
) -> tuple[Bundle, tuple[parity.Stage, ...], tuple[str, ...]]:
    """The bundle with its true embedding length; stages against transformers, or what was checked instead, in words."""
    dim = _run(made, samples)
    role = made.manifest.roles.embed
    assert role is not None
    made = Bundle(made.path, replace(made.manifest, roles=Roles(embed=replace(role, dim=dim))), "")
    if not any(source.path.glob("*.safetensors")):
        note = (
            "not compared with transformers: no weights beside the ONNX graphs; they run, and texts and pictures get "
        )
        return made, (), (f"{note}finite embeddings of one length ({dim}) that differ with the input",)
    checkpoint = load_checkpoint(source.path)
    whole = Source(checkpoint, {"embed": RoleSource(reference(checkpoint))})
    stages = parity.compare(made, whole, parity.expect(whole, samples), samples)
    parity.require(stages, "ONNX")
    return made, stages, ()


def _run(made: Bundle, samples: Sequence[Scene]) -> int:
    """Length of the embeddings; VerificationError where the graphs don't run or give nothing usable."""
    model, role = Model(made), made.manifest.roles.embed
    assert role is not None
    encoder = DualEncoder(model, role)
    prompts = [fill(role.text_prompt, [model.tokenizer.encode(s.text)]) for s in samples]
    try:
        texts = encoder.texts(prompts)
        pictures = encoder.features(model.features(role.vision, model.prepare([s.photo for s in samples])))
    except EdgegeoError:
        raise
    except Exception as error:  # onnxruntime raises its own classes from a private module
        raise VerificationError(f"the ONNX graphs don't run as they are ({one_line(error)}); {REMEDY}") from None
    if texts.shape != pictures.shape or texts.ndim != 2:
        raise VerificationError(
            f"the ONNX graphs give texts {texts.shape} and pictures {pictures.shape} for {len(samples)} inputs, which "
            "are not vectors of one space; use the graphs of one checkpoint"
        )
    for kind, rows in (("text", texts), ("picture", pictures)):
        norms = np.linalg.norm(rows.astype(np.float64), axis=1)
        if not np.isfinite(norms).all() or norms.min() == 0.0 or len(np.unique(rows, axis=0)) < 2:
            raise VerificationError(
                f"the ONNX graphs give {kind} embeddings that are not finite, zero, or all alike; {REMEDY}"
            )
    return int(texts.shape[1])


def _type(kind: Any) -> str:
    return str(onnx.TensorProto.DataType.Name(kind.elem_type)).lower()
