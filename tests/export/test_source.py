"""Checkpoints and adapters: what opens, and what is refused with a line that helps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgegeo.errors import CheckpointError
from edgegeo.export.components import layout
from edgegeo.export.source import Source, open_source


def copy_of(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_each_role_gets_its_adapter_merged_with_proof(source: Source) -> None:
    assert source.roles["rerank"].model is source.checkpoint.model
    for role in ("embed", "generate"):
        assert source.roles[role].model is not source.checkpoint.model
        difference = source.roles[role].merge_difference
        assert difference is not None
        assert 0 <= difference < 1e-4
    assert source.checkpoint.stop_ids == (2,)


def test_parts_with_equal_weights_are_shared(source: Source) -> None:
    """The LoRA retriever touches both towers, the GPS adapter the decoder only."""
    plan = layout(source)
    assert plan.roles["rerank"] == {"vision": "vision", "trunk": "trunk"}
    assert plan.roles["embed"] == {"vision": "vision_embed", "trunk": "trunk_embed"}
    assert plan.roles["generate"] == {"vision": "vision", "trunk": "trunk_generate", "head": "head"}


def test_latent_queries_leave_the_backbone_untouched(checkpoint: Path) -> None:
    source = open_source(checkpoint, method="slq")
    assert source.roles["embed"].model is source.checkpoint.model
    queries = source.roles["embed"].reference.queries
    assert queries is not None
    assert queries.shape == (3, 64)
    assert layout(source).roles["embed"] == {"vision": "vision", "trunk": "trunk"}


def test_named_adapter_overrides_the_checkpoints_own(checkpoint: Path) -> None:
    source = open_source(checkpoint, {"generate": checkpoint / "adapters" / "retriever-lora"})
    assert source.roles["generate"].adapter == "retriever-lora"


def test_adapter_whose_weights_have_other_names(checkpoint: Path, tmp_path: Path) -> None:
    """peft only warns of this and would export the base model under the adapter's name."""
    from safetensors.numpy import load_file, save_file

    folder = copy_of(checkpoint, tmp_path)
    file = folder / "adapters" / "retriever-lora" / "adapter_model.safetensors"
    save_file({name.replace("model.model", "other"): value for name, value in load_file(file).items()}, file)
    with pytest.raises(CheckpointError, match=r"changes nothing|doesn't fit"):
        open_source(folder)


def test_queries_for_generation_are_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="only embed"):
        open_source(checkpoint, {"generate": checkpoint / "adapters" / "retriever-slq"})


def test_missing_weights_are_not_made_up(checkpoint: Path, tmp_path: Path) -> None:
    """transformers fills them with random numbers and only logs it."""
    from safetensors.numpy import load_file, save_file

    folder = copy_of(checkpoint, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.text_model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack model\.text_model\.layers\.1\.mlp\.up_proj"):
        open_source(folder)
