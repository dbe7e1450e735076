"""Every graph of every family, tiny, in the trt dialects: what a linter and a compiler have to take."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgegeo.export.components import Part, build
from edgegeo.export.graph import Graph
from edgegeo.export.linear import Storage
from edgegeo.export.trunk import build_trunk

FAMILIES = ("smolvlm", "internvl", "qwen2_5_vl", "gemma3", "clip", "siglip")
DECODERS = ("llama", "qwen2", "qwen3", "qwen2_5_vl", "gemma3")
PRECISIONS = ("fp32", "fp16", "int8", "int4")
WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
"""A decoder whose matrices weigh more than everything else of its plan."""


def family_parts(family: str, folder: Path) -> dict[str, Part]:
    """The components of a tiny checkpoint, by kind; its folder is written to `folder`."""
    from dual import write_clip, write_siglip
    from tiny_families import tiny_checkpoint

    from edgegeo.models.checkpoint import load_checkpoint

    writers = {"clip": write_clip, "siglip": write_siglip}
    place = writers[family](folder) if family in writers else tiny_checkpoint(family, folder)
    one = load_checkpoint(place)
    kinds = ("vision", "text") if one.family.text else ("vision", "trunk", "head")
    return {kind: Part(kind, kind, one.model, one.family, one.image) for kind in kinds}


def part_graph(part: Part, precision: str, ranges: bool = False, dialect: str = "trt") -> Graph:
    """Graph of a component; ranges: activations quantised too, with the same range in every layer."""
    how = Storage(precision, block_size=64)
    if ranges:
        names = build(part, how, dialect=dialect).layer_inputs
        how = Storage(precision, block_size=64, ranges=dict.fromkeys(names, (-4.0, 4.0)))
    return build(part, how, dialect=dialect)


def wide_decoder(kind: str, **changes: Any) -> Any:
    """A transformers text model of WIDE size."""
    from tiny_decoders import make_decoder

    sections = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}}
    own = WIDE | (sections if kind == "qwen2_5_vl" else {})
    return make_decoder(kind, **{name: value for name, value in own.items() if name != "head_dim"} | changes)


def decoder_graphs(kind: str, dialect: str = "trt") -> Iterator[tuple[str, Graph]]:
    """(precision, graph) of a wide decoder."""
    model = wide_decoder(kind)
    for precision in PRECISIONS:
        yield precision, build_trunk(model, Storage(precision, block_size=64), dialect)
