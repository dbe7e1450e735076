"""A tiny SmolVLM checkpoint folder with random weights, a LoRA and latent queries for it."""

from pathlib import Path

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

    from edgegeo.train.adapting import attach_lora, open_learner, save_lora
    from edgegeo.train.parallel import World
    from edgegeo.train.settings import Lora, Memory, Schedule

    learner = open_learner(folder, Schedule(), Memory(dtype="fp32"), World())
    torch.manual_seed(1)
    attach_lora(learner, Lora(rank=2, alpha=16, dropout=0.0))
    weights = {name: torch.randn_like(p) * 0.1 for name, p in learner.trainable if "lora_B" in name}
    out = tmp_path_factory.mktemp("adapters") / "lora"
    save_lora(learner.adapted, weights, out)
    return out


@pytest.fixture(scope="session")
def slq(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three latent queries."""
    import torch

    from edgegeo.train.adapting import open_learner
    from edgegeo.train.parallel import World
    from edgegeo.train.retriever import Retriever
    from edgegeo.train.settings import Memory, RetrieverSettings, Schedule

    out = tmp_path_factory.mktemp("adapters") / "slq"
    learner = open_learner(folder, Schedule(), Memory(dtype="fp32"), World())
    torch.manual_seed(2)
    Retriever(learner, RetrieverSettings(out=out, method="slq", queries=3)).save(out)
    return out
