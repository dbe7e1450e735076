"""Adapters that belong to another checkpoint of the same shapes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from edgegeo.errors import CheckpointError
from edgegeo.models.adapters import merge_adapter
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.hub import repository_of
from edgegeo.models.lineage import BASE_FILE, record_base, require_base


@pytest.fixture(scope="module")
def other(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shapes and tokenizer, other weights: as a base beside its instruction-tuned sister."""
    return rewritten(folder, tmp_path_factory.mktemp("other") / "tiny", lambda t: t + 0.02 * torch.randn_like(t))


def rewritten(folder: Path, target: Path, change: Any) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    file = target / "model.safetensors"
    torch.manual_seed(5)
    save_file({name: change(t) for name, t in load_file(file).items()}, file, metadata={"format": "pt"})
    return target


def plain(lora: Path, target: Path, **facts: Any) -> Path:
    """The adapter as PEFT itself would have saved it: nothing of edgegeo's beside it."""
    shutil.copytree(lora, target)
    (target / BASE_FILE).unlink()
    file = target / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return target


def test_what_edgegeo_trained_knows_its_base(folder: Path, other: Path, lora: Path) -> None:
    assert merge_adapter(load_checkpoint(folder), lora).moved > 0
    with pytest.raises(CheckpointError, match=rf"trained on other weights than those of .* remove {BASE_FILE}"):
        merge_adapter(load_checkpoint(other), lora)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_base_in_another_type_is_the_same_one(folder: Path, lora: Path, tmp_path: Path, dtype: Any) -> None:
    half = rewritten(folder, tmp_path / "half", lambda t: t.to(dtype))
    require_base(load_checkpoint(half), lora)


def test_latent_queries_know_their_base_too(folder: Path, other: Path, slq: Path, tmp_path: Path) -> None:
    from edgegeo.models.reference import open_reference

    shutil.copytree(slq, tmp_path / "slq")
    record_base(load_checkpoint(folder).model, tmp_path / "slq")
    assert open_reference(load_checkpoint(folder), tmp_path / "slq").embed_texts(["a lake"]).shape == (1, 32)
    with pytest.raises(CheckpointError, match="trained on other weights"):
        open_reference(load_checkpoint(other), tmp_path / "slq")


@pytest.mark.parametrize("content", ["{}", '{"weights": 3}', "[]", "{"])
def test_a_damaged_record_is_told(folder: Path, lora: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(lora, tmp_path / "lora")
    (tmp_path / "lora" / BASE_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=BASE_FILE):
        require_base(load_checkpoint(folder), tmp_path / "lora")


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"base_model_name_or_path": "HuggingFaceTB/SmolVLM-256M-Instruct"},
        {"base_model_name_or_path": "/home/somebody/checkpoints/17", "auto_mapping": {"base_model_class": "Wrapped"}},
        {"auto_mapping": {"parent_library": "transformers.models.smolvlm.modeling_smolvlm"}},
        {"auto_mapping": {"parent_library": "transformers.models.idefics3.modeling_idefics3"}},
        {"auto_mapping": {"parent_library": "transformers_modules.somebody.remote"}},
        {"auto_mapping": "none"},
    ],
)
def test_a_plain_folder_beside_a_local_copy_is_taken(
    other: Path, lora: Path, tmp_path: Path, facts: dict[str, Any]
) -> None:
    require_base(load_checkpoint(other), plain(lora, tmp_path / "lora", **facts))


def test_an_adapter_of_another_family_is_refused(folder: Path, lora: Path, tmp_path: Path) -> None:
    library = {"base_model_class": "X", "parent_library": "transformers.models.qwen2_vl.modeling_qwen2_vl"}
    made = plain(lora, tmp_path / "lora", auto_mapping=library)
    with pytest.raises(CheckpointError, match=r"trained on a 'qwen2_vl' model.* of the family smolvlm"):
        merge_adapter(load_checkpoint(folder), made)


@pytest.mark.parametrize(
    ("named", "taken"),
    [
        ("HuggingFaceTB/SmolVLM-256M-Instruct", True),
        ("huggingfacetb/smolvlm-256m-instruct", True),
        ("HuggingFaceTB/SmolVLM-256M-Instruct-AWQ", True),
        ("HuggingFaceTB/SmolVLM-256M", True),
        ("unsloth/SmolVLM-256M-Base-bnb-4bit", True),
        ("./out/merged", True),
        (None, True),
        ("HuggingFaceTB/SmolVLM-256M-Base", False),
    ],
)
def test_a_snapshot_of_the_hub_has_a_name(
    folder: Path, lora: Path, tmp_path: Path, named: str | None, taken: bool
) -> None:
    cached = tmp_path / "models--HuggingFaceTB--SmolVLM-256M-Instruct" / "snapshots" / "0123abc"
    shutil.copytree(folder, cached)
    assert (repository_of(cached), repository_of(folder)) == ("HuggingFaceTB/SmolVLM-256M-Instruct", "")
    made = plain(lora, tmp_path / "lora", base_model_name_or_path=named)
    if taken:
        require_base(load_checkpoint(cached), made)
    else:
        with pytest.raises(CheckpointError, match=r"name HuggingFaceTB/SmolVLM-256M-Base, or change"):
            require_base(load_checkpoint(cached), made)
