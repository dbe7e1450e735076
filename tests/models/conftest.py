"""A tiny SmolVLM checkpoint folder with random weights, a LoRA and latent queries for it."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = ["a lake to the north", "yes", "no", "same place?", "where?", "<answer>+12.3, -045.6</answer>"] * 4


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint; read it, never change it."""
    import torch

    from edgegeo.train.settings import Shape
    from edgegeo.train.skeleton import new_model, save_checkpoint, train_tokenizer

    out = tmp_path_factory.mktemp("models") / "tiny"
    shape = Shape(image_size=32, hidden=32, vision_layers=1, text_layers=2, kv_heads=1, ffn=32, vocab=320)
    tokenizer = train_tokenizer(TEXTS, shape.vocab)
    torch.manual_seed(0)
    save_checkpoint(out, new_model(shape, tokenizer), tokenizer, shape, 2026)
    return out


@pytest.fixture(scope="session")
def lora(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DoRA with effect: its B matrices are not zero."""
    pytest.importorskip("peft")
    import torch

    from edgegeo.models.checkpoint import load_checkpoint
    from edgegeo.train.adapting import LoraShape, attach_lora, save_lora
    from edgegeo.train.settings import LORA_TARGETS

    torch.manual_seed(1)
    adapted: Any = attach_lora(load_checkpoint(folder).model, LoraShape(2, 16, 0.0, True, LORA_TARGETS))
    weights = {name: torch.randn_like(p) * 0.1 for name, p in adapted.named_parameters() if "lora_B" in name}
    out = tmp_path_factory.mktemp("adapters") / "lora"
    save_lora(adapted, weights, out)
    return out


@pytest.fixture(scope="session")
def slq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three latent queries."""
    import torch

    from edgegeo.train.retriever import LatentQueries

    torch.manual_seed(2)
    out = tmp_path_factory.mktemp("adapters") / "slq"
    LatentQueries(3, 32, 0.07).save(out)
    return out
