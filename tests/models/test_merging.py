"""Merging with proof, reading queries, and the torch reference."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgegeo.errors import CheckpointError
from edgegeo.models import weights
from edgegeo.models.adapters import Folded, hushed_peft, is_queries, load_queries, merge_adapter
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.reference import open_reference
from edgegeo.planet import Planet


def test_merged_equals_attached_and_leaves_the_base_alone(folder: Path, lora: Path) -> None:
    checkpoint = load_checkpoint(folder)
    model = checkpoint.model
    before = {name: p.clone() for name, p in model.named_parameters()}
    merged = merge_adapter(checkpoint, lora)
    assert merged.difference < 1e-5 * max(1.0, merged.scale)
    assert merged.moved > 100 * merged.difference
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any("lora" in name for name, _ in merged.model.named_parameters())


def test_a_folder_that_is_no_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        merge_adapter(checkpoint, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="doesn't fit this checkpoint"):
        merge_adapter(checkpoint, tmp_path)


def test_queries_are_read_and_checked(slq: Path, lora: Path, tmp_path: Path) -> None:
    assert is_queries(slq)
    assert not is_queries(lora)
    assert load_queries(slq, 32).dtype == np.float32
    with pytest.raises(CheckpointError, match="this model needs"):
        load_queries(slq, 64)
    with pytest.raises(CheckpointError, match="edgegeo train retriever"):
        load_queries(tmp_path)


def test_the_reference_answers_every_role(folder: Path, slq: Path) -> None:
    planet = Planet()
    tile, photo = planet.satellite(10.0, 20.0, 64), planet.ground(10.0, 20.0, 0.0, 64)
    checkpoint = load_checkpoint(folder)
    for reference in (open_reference(checkpoint), open_reference(checkpoint, slq)):
        texts, images = reference.embed_texts(["a lake", "no lake at all"]), reference.embed_images([tile, photo])
        assert texts.shape == images.shape == (2, 32)
        assert np.allclose(np.linalg.norm(np.concatenate([texts, images]), axis=1), 1.0, atol=1e-5)
    reference = open_reference(checkpoint)
    assert np.isfinite(reference.yes_no_margin("a lake", tile))
    assert reference.yes_no_margin(photo, tile) != reference.yes_no_margin("a lake", tile)
    text, ids = reference.generate(photo, max_new_tokens=3)
    assert isinstance(text, str)
    assert len(ids) <= 3


def test_greedy_answers_equal_transformers_own_generate(folder: Path) -> None:
    from edgegeo.models.families.smolvlm import image_features
    from edgegeo.models.prompts import fill_ids, segments
    from edgegeo.runtime.pictures import prepare_picture

    checkpoint = load_checkpoint(folder)
    picture = prepare_picture(Planet().ground(10.0, 20.0, 0.0, 64), checkpoint.image)
    prompt = segments(checkpoint.settings.prompts["generate"], checkpoint.tokenizer)
    ids = torch.tensor([fill_ids(prompt, checkpoint.config.image_token_id, [picture.layout])])
    stack = torch.from_numpy(picture.inputs["pixel_values"])
    with torch.no_grad():
        own = checkpoint.model.generate(input_ids=ids, pixel_values=stack[None], max_new_tokens=5, do_sample=False)
        features = checkpoint.model.model.get_image_features(stack[None]).pooler_output[0]
    assert torch.allclose(image_features(checkpoint.model, stack)[0], features, atol=1e-5)
    written = own[0, ids.shape[1] :].tolist()
    stop = checkpoint.stop_ids[0]
    expected = written[: written.index(stop)] if stop in written else written
    assert open_reference(checkpoint).generate(Planet().ground(10.0, 20.0, 0.0, 64), max_new_tokens=5)[1] == expected


@pytest.fixture
def peft_folder(folder: Path, tmp_path: Path) -> Any:
    """Makes plain PEFT folders, as a user would outside edgegeo."""

    def make(name: str = "plain", **settings: Any) -> Path:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(3)
        config = LoraConfig(**({"r": 4, "target_modules": ["q_proj", "down_proj", "fc1"]} | settings))
        with hushed_peft():
            adapted = get_peft_model(load_checkpoint(folder).model, config)
        with torch.no_grad():
            for key, parameter in adapted.named_parameters():
                if "lora_B" in key or "modules_to_save" in key:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        adapted.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


ADAPTERS = [
    {},
    {"use_dora": True},
    {"use_rslora": True, "lora_alpha": 3},
    {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 32}},
    {"modules_to_save": ["modality_projection"]},
    {"target_modules": ["q_proj", "patch_embedding"]},
    {"target_modules": ["q_proj", "lm_head"]},
    {"target_modules": ["fc1", "fc2"], "lora_bias": True},
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("settings", ADAPTERS, ids=lambda s: ",".join(s) or "plain")
@pytest.mark.parametrize("lean", [False, True])
def test_merged_matrices_are_what_peft_itself_merges(
    folder: Path, peft_folder: Any, settings: dict[str, Any], lean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    folder_of = peft_folder(**settings)
    own = PeftModel.from_pretrained(load_checkpoint(folder).model, folder_of).merge_and_unload()
    monkeypatch.setattr(weights, "FULL_BYTES", 0 if lean else weights.FULL_BYTES)
    checkpoint = load_checkpoint(folder)
    merged = merge_adapter(checkpoint, folder_of)
    assert merged.difference < 1e-4 * merged.scale
    assert merged.moved > 100 * merged.difference
    assert any(isinstance(m, Folded) for m in merged.model.modules()) == lean
    moved = 0
    for (name, expected), before in zip(own.named_modules(), load_checkpoint(folder).model.modules(), strict=True):
        if isinstance(expected, torch.nn.Linear | torch.nn.Conv2d):
            got = merged.model.get_submodule(name)
            assert torch.allclose(got.weight.float(), expected.weight, atol=1e-6), name
            assert (got.bias is None) == (expected.bias is None)
            if got.bias is not None:
                assert torch.allclose(got.bias.float(), expected.bias, atol=1e-6), name
            moved += not torch.equal(expected.weight, before.weight)
    assert moved


def test_several_adapters_share_one_base(folder: Path, lora: Path, peft_folder: Any) -> None:
    """What an adapter leaves alone is the very same tensor in every model; no matrix is copied for nothing."""
    checkpoint = load_checkpoint(folder)
    other = peft_folder(target_modules=r".*text_model.*q_proj")
    base = {id(p) for p in checkpoint.model.parameters()}
    models = [merge_adapter(checkpoint, one).model for one in (lora, other)]
    own = [{id(p) for p in model.parameters()} - base for model in models]
    assert len(own[1]) == 2  # the q_proj of two layers
    assert not own[0] & own[1]


@pytest.mark.parametrize("name", ["adapter_model.bin", "training_args.pt", "state.pkl"])
def test_pickles_beside_an_adapter_are_refused(folder: Path, peft_folder: Any, name: str) -> None:
    made = peft_folder()
    (made / name).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=rf"{name}.*safetensors only"):
        merge_adapter(load_checkpoint(folder), made)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_adapters_that_train_the_bases_biases_are_refused(folder: Path, peft_folder: Any, bias: str) -> None:
    with pytest.raises(CheckpointError, match=rf"bias='{bias}'.*bias='none'"):
        merge_adapter(load_checkpoint(folder), peft_folder(bias=bias))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_that_change_the_base_or_its_embeddings_are_refused(folder: Path, peft_folder: Any) -> None:
    from safetensors.torch import load_file, save_file

    made = peft_folder()
    file = made / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.model.connector.extra.weight": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match=r"changes .*connector\.extra\.weight of the base itself"):
        merge_adapter(load_checkpoint(folder), made)
    with pytest.raises(CheckpointError, match="changes the token embeddings"):
        merge_adapter(load_checkpoint(folder), peft_folder("tokens", target_modules=["embed_tokens"]))


def test_damaged_adapters_are_told(folder: Path, peft_folder: Any) -> None:
    made = peft_folder()
    file = made / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors .*cut off"):
        merge_adapter(load_checkpoint(folder), made)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"lacks adapter_model\.safetensors"):
        merge_adapter(load_checkpoint(folder), made)
    file.write_bytes(whole)
    config = json.loads((made / "adapter_config.json").read_text())
    (made / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "LOHA"}))
    with pytest.raises(CheckpointError, match="merges LoRA, not 'LOHA'"):
        merge_adapter(load_checkpoint(folder), made)


def test_a_wrong_merge_shows_in_the_difference(folder: Path, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof measures: with a merge that forgets a tenth of the weight it says so."""
    from edgegeo.models import adapters

    right = adapters.fold

    def wrong(layer: Any) -> Any:
        base = right(layer)
        base.weight.data *= 0.9
        return base

    monkeypatch.setattr(adapters, "fold", wrong)
    merged = merge_adapter(load_checkpoint(folder), lora)
    assert merged.difference > 1e-3 * merged.scale


@pytest.mark.parametrize("layers", [1, 3])
def test_an_adapter_of_a_shallower_or_deeper_model_is_refused(folder: Path, tmp_path: Path, layers: int) -> None:
    """Same widths, so every shape fits: PEFT would drop what is too much and leave out what lacks."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder)
    config.text_config.num_hidden_layers = layers
    with hushed_peft():
        adapted = get_peft_model(
            AutoModelForImageTextToText.from_config(config), LoraConfig(r=2, target_modules=["gate_proj"])
        )
        adapted.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"holds {2 * layers} matrices, the layers it names here take 4"):
        merge_adapter(load_checkpoint(folder), tmp_path)
