"""Prompts of different lengths computed together give what each gives alone, in every family."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES, tiny_checkpoint

from edgegeo.models.checkpoint import Checkpoint, load_checkpoint
from edgegeo.models.prompts import fill_ids, segments
from edgegeo.runtime.pictures import Picture, prepare_picture


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint(request.param, tmp_path_factory.mktemp(request.param) / "tiny"))


def rows(checkpoint: Checkpoint) -> list[tuple[list[int], list[Picture]]]:
    """A text, a picture, two pictures with words behind them."""
    rng = np.random.default_rng(5)
    shown = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((90, 150), (64, 64))]
    pictures = [prepare_picture(image, checkpoint.image) for image in shown]
    placeholder = checkpoint.family.image_token_id(checkpoint.config)
    out = []
    for role, some in (("embed_text", []), ("embed_image", pictures[:1]), ("rerank", pictures)):
        prompt = segments(
            checkpoint.settings.prompts[role], checkpoint.tokenizer, "image", checkpoint.family.around_image
        )
        text = list(checkpoint.tokenizer.encode("a green field", add_special_tokens=False).ids)
        out.append((fill_ids(prompt, placeholder, [p.layout for p in some], [text]), some))
    return out


def test_features_together_are_features_alone(checkpoint: Checkpoint) -> None:
    pictures = rows(checkpoint)[2][1]
    with torch.no_grad():
        together = checkpoint.family.features(checkpoint.model, pictures)
        alone = [checkpoint.family.image_features(checkpoint.model, picture) for picture in pictures]
    assert [len(part) for part in together] == [len(part) for part in alone]
    for one, two in zip(together, alone, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [0, 3])
def test_padded_batches_are_single_prompts(checkpoint: Checkpoint, count: int) -> None:
    given = rows(checkpoint)
    longest = max(len(ids) for ids, _ in given) + 5
    padded = torch.tensor([ids + [1] * (longest - len(ids)) for ids, _ in given])
    lengths = torch.tensor([len(ids) for ids, _ in given])
    hidden = checkpoint.config.get_text_config().hidden_size
    tail = torch.randn(count, hidden, generator=torch.Generator().manual_seed(0)) if count else None
    family, model = checkpoint.family, checkpoint.model
    with torch.no_grad():
        together = family.hidden(model, padded, [p for _, some in given for p in some], tail, lengths)
        for row, (ids, some) in enumerate(given):
            alone = family.hidden(model, torch.tensor([ids]), some, tail)[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=2e-5, rtol=0)


def test_control_tokens_in_a_text_are_letters(checkpoint: Checkpoint) -> None:
    """A caption is not a prompt: one that holds a placeholder must not ask for a picture."""
    from edgegeo.models.prompts import literal_ids

    placeholder = checkpoint.tokenizer.id_to_token(checkpoint.family.image_token_id(checkpoint.config))
    text = f"a field {placeholder} a house"
    parsed = checkpoint.tokenizer.encode(text, add_special_tokens=False).ids
    plain = literal_ids(text, checkpoint.tokenizer)
    token = checkpoint.family.image_token_id(checkpoint.config)
    assert token in parsed
    assert token not in plain
    assert checkpoint.tokenizer.encode(text, add_special_tokens=False).ids == parsed  # prompts are still parsed
