"""Everything of a bundle but its graphs: arrays, Hugging Face files, roles, manifest."""

import importlib.metadata
import platform
import shutil
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.bundle import (
    SCHEMA_VERSION,
    Bundle,
    Component,
    EmbedRole,
    FileEntry,
    GenerateRole,
    Manifest,
    PairQuestion,
    RerankRole,
    Roles,
    Segment,
    TrunkSpec,
)
from edgegeo.errors import CheckpointError
from edgegeo.export.components import Layout, Ranges, storage
from edgegeo.export.grammar import GRAMMAR_NAME, write_grammar
from edgegeo.export.graph import array
from edgegeo.export.linear import as_stored, to_half
from edgegeo.export.source import Source
from edgegeo.export.trunk import trunk_shape
from edgegeo.models.checkpoint import Checkpoint
from edgegeo.models.family import TextSpec
from edgegeo.models.prompts import segments, turned, word_ids
from edgegeo.recipe import DIALECTS, Recipe
from edgegeo.schema import to_plain

HF_FILES = (
    "config.json", "preprocessor_config.json", "processor_config.json", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
MAX_TEXT_TOKENS = 300
"""Longest text of an embedding (NGCG-MLLM, arXiv 2604.10721), where the model has room for it."""
TABLE_ROWS = 8192
"""Rows of the token table that are converted at a time."""
_PAIR = "rerank_pair"
TOOLS = ("edgegeo", "torch", "transformers", "peft", "onnx", "onnxruntime", "numpy")


def write_arrays(source: Source, recipe: Recipe, folder: Path, ranges: Ranges | None = None) -> None:
    """Write the token-embedding table, the yes/no rows, the grammar, the latent queries; a dual encoder has none."""
    if source.checkpoint.family.text:
        return
    family, table = source.checkpoint.family, source.checkpoint.model.get_input_embeddings().weight
    for role, one in source.roles.items():
        own = one.model.get_input_embeddings().weight
        if own is not table and not np.array_equal(array(own), array(table)):
            raise CheckpointError(f"the adapter of role '{role}' changes the token embeddings; retrain it without them")
    scale = np.float32(family.embedding_scale(source.checkpoint.model))
    _write_table(folder / "embed_tokens.npy", table, scale, recipe.embeddings == "fp16")
    if "rerank" in source.roles:
        yes, no = answer_ids(source.checkpoint)
        head = family.parts(source.roles["rerank"].model).head
        np.save(folder / "head_rows.npy", array(head.weight[[*yes, *no]]))
        if _PAIR in source.checkpoint.settings.prompts:
            first, second = pair_ids(source.checkpoint)
            np.save(folder / "pair_rows.npy", array(head.weight[[*first, *second]]))
    if "generate" in source.roles:
        head = family.parts(source.roles["generate"].model).head
        checkpoint = source.checkpoint
        how = storage("head", recipe, (ranges or {}).get("head"))
        rounder = how.rounder("logits", "hidden_states")
        kept = partial(as_stored, precision=how.of("logits"), block_size=recipe.block_size, how=rounder)
        write_grammar(checkpoint.tokenizer, head, checkpoint.settings.answer, folder, kept)
    queries = source.roles["embed"].reference.queries if "embed" in source.roles else None
    if queries is not None:
        np.save(folder / "queries.npy", np.asarray(queries, np.float32))


def _write_table(file: Path, table: Any, scale: np.float32, half: bool) -> None:
    """What np.save writes of the scaled table (V, H), in slices: it is the largest matrix of most models."""
    kind = np.dtype(np.float16 if half else np.float32)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": tuple(table.shape)}
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(table), TABLE_ROWS):
            rows = array(table[start : start + TABLE_ROWS])
            rows = rows if scale == 1.0 else rows * scale
            stream.write(np.ascontiguousarray(to_half(rows, "embed_tokens") if half else rows).data)


def answer_ids(checkpoint: Checkpoint) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of yes and of no; CheckpointError if a token stands for both."""
    return _ids_apart(checkpoint, ("yes", checkpoint.settings.yes), ("no", checkpoint.settings.no))


def pair_ids(checkpoint: Checkpoint) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of the words for the first and the second candidate; CheckpointError if a token stands for both."""
    settings = checkpoint.settings
    return _ids_apart(checkpoint, ("the first", settings.first), ("the second", settings.second))


def _ids_apart(
    checkpoint: Checkpoint, one: tuple[str, tuple[str, ...]], other: tuple[str, tuple[str, ...]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    first, second = word_ids(one[1], checkpoint.tokenizer), word_ids(other[1], checkpoint.tokenizer)
    if set(first) & set(second):
        raise CheckpointError(
            f"the same token stands for {one[0]} and for {other[0]}; name other words in edgegeo_model.json"
        )
    return first, second


def copy_files(source: Source, folder: Path) -> None:
    """Copy the Hugging Face files that stand beside the weights."""
    for name in HF_FILES:
        if (source.checkpoint.path / name).is_file():
            shutil.copyfile(source.checkpoint.path / name, folder / name)


def manifest(
    source: Source, recipe: Recipe, plan: Layout, components: dict[str, Component], calibration: dict[str, Any]
) -> Manifest:
    """The manifest, still without accuracy card and file list."""
    dual = bool(source.checkpoint.family.text)
    return Manifest(
        schema=SCHEMA_VERSION, name=f"{source.name}-{recipe.name}", family=source.checkpoint.family.name,
        dialect=DIALECTS[recipe.target],
        target=recipe.target, components=dict(sorted(components.items())), image=source.checkpoint.image,
        trunk=None if dual else trunk_spec(source),
        roles=dual_roles(source, plan) if dual else roles(source, plan),
        tokenizer="tokenizer.json",
        embed_tokens=None if dual else "embed_tokens.npy", golden="golden.npz", accuracy={}, calibration=calibration,
        source=source.facts | {"recipe": to_plain(recipe)}, tools=tool_versions(),
    )  # fmt: skip


def trunk_spec(source: Source) -> TrunkSpec:
    """Shape of the decoder, from the checkpoint's configuration."""
    config = source.checkpoint.config.get_text_config()
    shape = trunk_shape(config)
    return TrunkSpec(
        shape.layers, shape.kv_heads, shape.head_dim, shape.hidden,
        source.checkpoint.model.get_input_embeddings().weight.shape[0], shape.max_positions,
        shape.rope, shape.blocks,
    )  # fmt: skip


def _pair_question(checkpoint: Checkpoint, frozen: Any, bias: Any) -> PairQuestion:
    one, other = pair_ids(checkpoint)
    return PairQuestion(
        frozen(_PAIR, "image"), frozen(_PAIR, "text"), one, other, "pair_rows.npy",
        () if bias is None else tuple(array(bias)[[*one, *other]].tolist()),
    )  # fmt: skip


def roles(source: Source, plan: Layout) -> Roles:
    """Roles with their prompts frozen."""
    checkpoint = source.checkpoint

    def frozen(name: str, query: str = "text", freeze: Any = segments) -> tuple[Segment, ...]:
        template = checkpoint.settings.prompts[name]
        found: tuple[Segment, ...] = freeze(template, checkpoint.tokenizer, query, checkpoint.family.around_image)
        return found

    embed = rerank = generate = None
    if "embed" in source.roles:
        embed = _embed_role(source, plan.roles["embed"], frozen("embed_text"), frozen("embed_image"))
    if "rerank" in source.roles:
        yes, no = answer_ids(checkpoint)
        bias = checkpoint.family.parts(source.roles["rerank"].model).head.bias
        rerank = RerankRole(
            vision=plan.roles["rerank"]["vision"], trunk=plan.roles["rerank"]["trunk"],
            image_prompt=frozen("rerank", "image"), text_prompt=frozen("rerank", "text"), yes_ids=yes, no_ids=no,
            rows="head_rows.npy", bias=() if bias is None else tuple(array(bias)[[*yes, *no]].tolist()),
            image_prompt_turned=frozen("rerank", "image", turned), text_prompt_turned=frozen("rerank", "text", turned),
            pair=_pair_question(checkpoint, frozen, bias) if _PAIR in checkpoint.settings.prompts else None,
        )  # fmt: skip
    if "generate" in source.roles:
        parts = plan.roles["generate"]
        generate = GenerateRole(
            vision=parts["vision"], trunk=parts["trunk"], head=parts["head"], prompt=frozen("generate"),
            stop_ids=checkpoint.stop_ids, max_new_tokens=checkpoint.settings.max_new_tokens,
            grammar=GRAMMAR_NAME,
            phrasings=tuple(
                segments(one, checkpoint.tokenizer, around=checkpoint.family.around_image)
                for one in checkpoint.settings.phrasings
            ),
        )  # fmt: skip
    return Roles(embed, rerank, generate)


def dual_roles(source: Source, plan: Layout) -> Roles:
    """The one role of a dual encoder."""
    return Roles(embed=dual_role(source.checkpoint.text_spec(), **plan.roles["embed"]))


def dual_role(spec: TextSpec, vision: str, text: str) -> EmbedRole:
    """Embedding by two towers: the text's control tokens frozen, the picture as it is. vision, text: components."""
    around = [(Segment(ids=ids),) if ids else () for ids in (spec.before, spec.after)]
    return EmbedRole(
        vision=vision, trunk=text, text_prompt=(*around[0], Segment(text=0), *around[1]),
        image_prompt=(Segment(image=0),), pooling="dual", dim=spec.dim, max_text_tokens=spec.longest,
        pad_id=spec.pad_id, pad_to=spec.pad_to, lower_case=spec.lower_case,
    )  # fmt: skip


def _embed_role(
    source: Source, parts: dict[str, str], text: tuple[Segment, ...], image: tuple[Segment, ...]
) -> EmbedRole:
    shape = trunk_shape(source.checkpoint.config.get_text_config())
    how = source.roles["embed"].reference
    queries = 0 if how.queries is None else len(how.queries)
    room = shape.max_positions - queries - sum(len(s.ids or ()) for s in text)
    return EmbedRole(
        vision=parts["vision"], trunk=parts["trunk"], text_prompt=text, image_prompt=image,
        pooling="queries" if queries else how.pooling, last=how.last, dim=shape.hidden,
        max_text_tokens=min(MAX_TEXT_TOKENS, room), queries="queries.npy" if queries else None,
        matryoshka=tuple(dim for dim in how.matryoshka if dim < shape.hidden),
    )  # fmt: skip


def draft(folder: Path, unfinished: Manifest) -> Bundle:
    """A staged folder as a Bundle that the runtime can open before it is published and hashed."""
    files = {f.relative_to(folder).as_posix(): FileEntry(f.stat().st_size, "") for f in _files(folder)}
    return Bundle(folder, replace(unfinished, files=files), "")


def tool_versions() -> dict[str, str]:
    """Versions of what makes a bundle; a tool that is not installed as a package is left out."""
    found = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _files(folder: Path) -> Iterable[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())
