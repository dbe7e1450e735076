"""Merging with proof, reading queries, and the torch reference."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgegeo.errors import CheckpointError
from edgegeo.models.adapters import is_queries, load_queries, merge_adapter
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.reference import open_reference
from edgegeo.planet import Planet


def test_merged_equals_attached_and_leaves_the_base_alone(folder: Path, lora: Path) -> None:
    model = load_checkpoint(folder).model
    before = {name: p.clone() for name, p in model.named_parameters()}
    merged = merge_adapter(model, lora)
    assert merged.difference < 1e-5 * max(1.0, merged.scale)
    assert merged.moved > 100 * merged.difference
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any("lora" in name for name, _ in merged.model.named_parameters())


def test_a_folder_that_is_no_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    model = load_checkpoint(folder).model
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        merge_adapter(model, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="doesn't fit this checkpoint"):
        merge_adapter(model, tmp_path)


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
    from edgegeo.models.prompts import fill_ids, image_wrap, segments
    from edgegeo.models.smolvlm import image_features
    from edgegeo.runtime.image import pixels

    checkpoint = load_checkpoint(folder)
    photo = Planet().ground(10.0, 20.0, 0.0, 64)
    wrap = image_wrap(checkpoint.tokenizer)
    prompt = segments(checkpoint.settings.prompts["generate"], checkpoint.tokenizer, wrap)
    ids = torch.tensor([fill_ids(prompt, checkpoint.config.image_token_id, checkpoint.image.tokens)])
    stack = torch.from_numpy(pixels(photo, checkpoint.image))[None]
    with torch.no_grad():
        own = checkpoint.model.generate(input_ids=ids, pixel_values=stack[None], max_new_tokens=5, do_sample=False)
        features = checkpoint.model.model.get_image_features(stack[None]).pooler_output[0]
    assert torch.allclose(image_features(checkpoint.model, stack)[0], features, atol=1e-5)
    written = own[0, ids.shape[1] :].tolist()
    stop = checkpoint.stop_ids[0]
    expected = written[: written.index(stop)] if stop in written else written
    assert open_reference(checkpoint).generate(photo, max_new_tokens=5)[1] == expected
