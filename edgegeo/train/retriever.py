"""Retrieval adapters: a LoRA on tower and decoder (NGCG-MLLM), or latent queries on a frozen model (SLQ).

Both learn text to tile and photo to tile together, with the other places of the batch as negatives.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import SLQ_CONFIG, SLQ_FILE
from edgegeo.progress import Progress, silent
from edgegeo.train import validate
from edgegeo.train.adapting import AdapterReport, Base, LoraShape, attach_lora, open_base, run_steps, save_lora
from edgegeo.train.losses import info_nce, unit
from edgegeo.train.masters import Masters
from edgegeo.train.settings import RetrieverSettings
from edgegeo.train.talk import Sequences
from edgegeo.train.trunk import features_of, query_states
from edgegeo.train.validate import Embed, eos_embedding

TEXT_TOKENS = 64
LORA_RATE, SLQ_RATE = 3e-4, 1e-2


class LatentQueries(nn.Module):
    """The whole of SLQ: queries (Q, hidden), shared by text and pictures, and the log of one over the temperature."""

    def __init__(self, queries: int, hidden: int, temperature: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, hidden) / hidden**0.5)
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def embed(self, model: object, rows: Sequences, features: Tensor | None) -> Tensor:
        """Unit embeddings (N, hidden): the mean over the query positions."""
        return unit(query_states(model, rows.ids, rows.lengths, features, self.queries).mean(1))

    def save(self, folder: Path) -> None:
        """Exactly the two learned tensors, float32, and what they are."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"queries": self.queries.detach().float(), "log_scale": self.log_scale.detach().float().reshape(1)}
        save_file(tensors, str(folder / SLQ_FILE))
        facts = {"method": "slq", "queries": len(self.queries), "hidden": self.queries.shape[1], "pooling": "mean"}
        (folder / SLQ_CONFIG).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def train_retriever(settings: RetrieverSettings, progress: Progress = silent) -> AdapterReport:
    """Train a retrieval adapter and write its folder; the base is never changed."""
    if settings.method not in ("lora", "slq"):
        raise TrainingError(f"method must be lora or slq, not {settings.method!r}")
    base = open_base(settings, progress)
    return (_train_lora if settings.method == "lora" else _train_slq)(settings, base, progress)


def contrastive_loss(
    model: object,
    base: Base,
    embed: Embed,
    scale: Tensor | float,
    symmetric: bool,
    index: np.ndarray,
    rng: np.random.Generator,
    frozen_vision: bool,
) -> Tensor:
    """Mean InfoNCE of text to tile and photo to tile over the places of `index`."""
    talk, places = base.talk, base.train
    with torch.set_grad_enabled(not frozen_vision):
        features = features_of(model, np.concatenate([places.pictures(kind, index) for kind in ("tile", "photo")]))
    image = talk.padded([(talk.image, 0)] * len(features), len(talk.image))
    tiles, photos = embed(model, image, features).chunk(2)
    texts = embed(model, talk.captions([places.words[i] for i in index], rng, TEXT_TOKENS), None)
    return (info_nce(texts, tiles, scale, symmetric) + info_nce(photos, tiles, scale, symmetric)) / 2


def recall_goal(scores: dict[str, float]) -> float:
    """What validation chooses by: the mean Recall@1 of both kinds of query."""
    return (scores["text_recall_at_1"] + scores["photo_recall_at_1"]) / 2


def _train_lora(settings: RetrieverSettings, base: Base, progress: Progress) -> AdapterReport:
    shape = LoraShape(settings.rank, settings.alpha, settings.dropout, settings.dora, settings.targets)
    adapted = attach_lora(base.model, shape)
    model = adapted.base_model.model
    learned = [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]
    lr = settings.lr or LORA_RATE
    masters = Masters(learned, lr, settings.weight_decay, betas=(0.9, 0.999))
    model.to(torch.bfloat16)
    scale = 1 / settings.temperature
    best_step, best, before = run_steps(
        settings,
        masters,
        lr,
        lambda index, rng: contrastive_loss(
            model, base, eos_embedding, scale, settings.symmetric, index, rng, frozen_vision=False
        ),
        lambda: validate.retrieval(model, base.talk, base.validation, len(base.validation.words)),
        recall_goal,
        len(base.train.words),
        progress,
    )
    save_lora(adapted, masters.weights(), settings.out)
    count = sum(p.numel() for _, p in learned)
    return AdapterReport(str(settings.out), settings.steps, count, best_step, best, before)


def _train_slq(settings: RetrieverSettings, base: Base, progress: Progress) -> AdapterReport:
    slq = LatentQueries(settings.queries, base.model.config.text_config.hidden_size, settings.initial_temperature)
    lr = settings.lr or SLQ_RATE
    masters = Masters(slq.named_parameters(), lr, 0.0, betas=(0.9, 0.999))
    model = base.model.to(torch.bfloat16).eval()
    best_step, best, before = run_steps(
        settings,
        masters,
        lr,
        lambda index, rng: contrastive_loss(
            model, base, slq.embed, slq.log_scale.exp().clamp(max=100.0), True, index, rng, frozen_vision=True
        ),
        lambda: validate.retrieval(model, base.talk, base.validation, len(base.validation.words), slq.embed),
        recall_goal,
        len(base.train.words),
        progress,
    )
    slq.save(settings.out)
    count = sum(p.numel() for p in slq.parameters())
    return AdapterReport(str(settings.out), settings.steps, count, best_step, best, before)
