"""The GPS adapter: a LoRA that answers a photo with its position (GeoLocSFT, arXiv 2506.01277).

Supervised fine-tuning; only the answer's tokens are in the loss, the prompt and the picture are not.
"""

import numpy as np
import torch
from torch import Tensor

from edgegeo.progress import Progress, silent
from edgegeo.train import validate
from edgegeo.train.adapting import AdapterReport, Base, LoraShape, attach_lora, open_base, run_steps, save_lora
from edgegeo.train.losses import answer_loss
from edgegeo.train.masters import Masters
from edgegeo.train.settings import GpsSettings
from edgegeo.train.trunk import features_of, hidden_states

ANSWER_TOKENS = 24
VALIDATION_PHOTOS = 400


def train_gps(settings: GpsSettings, progress: Progress = silent) -> AdapterReport:
    """Train a GPS adapter and write its folder; the base is never changed."""
    base = open_base(settings, progress)
    shape = LoraShape(settings.rank, settings.alpha, settings.dropout, False, settings.targets)
    adapted = attach_lora(base.model, shape)
    model = adapted.base_model.model
    learned = [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]
    masters = Masters(learned, settings.lr, settings.weight_decay, betas=(0.9, 0.999))
    model.to(torch.bfloat16)
    photos = min(VALIDATION_PHOTOS, len(base.validation.words))
    best_step, best, before = run_steps(
        settings,
        masters,
        settings.lr,
        lambda index, rng: position_loss(model, base, index),
        lambda: validate.gps(model, base.talk, base.validation, photos),
        gps_goal,
        len(base.train.words),
        progress,
    )
    save_lora(adapted, masters.weights(), settings.out)
    count = sum(p.numel() for _, p in learned)
    return AdapterReport(str(settings.out), settings.steps, count, best_step, best, before)


def position_loss(model: object, base: Base, index: np.ndarray) -> Tensor:
    """Cross-entropy of the answers to the photos of `index`."""
    start = len(base.talk.where)
    rows = base.talk.positions([base.train.words[i] for i in index], start + ANSWER_TOKENS)
    hidden = hidden_states(model, rows.ids, features_of(model, base.train.pictures("photo", index)))
    head = model.get_output_embeddings().weight  # type: ignore[attr-defined]
    return answer_loss(hidden, rows.labels, head, start)


def gps_goal(scores: dict[str, float]) -> float:
    """What validation chooses by: the shares within 200, 750 and 2500 km, averaged."""
    return sum(scores[f"gps_within_{km}_km"] for km in (200, 750, 2500)) / 3
