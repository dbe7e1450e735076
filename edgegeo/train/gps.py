"""The GPS adapter: a LoRA that answers a photo with its position (GeoLocSFT, arXiv 2506.01277).

Supervised fine-tuning; only the answer's tokens are in the loss, the prompt and the picture are not.
"""

import numpy as np
import torch
from torch import nn

from edgegeo.errors import TrainingError
from edgegeo.progress import Progress, silent
from edgegeo.train import validate
from edgegeo.train.adapting import Learner, attach_lora, settle
from edgegeo.train.masters import Masters
from edgegeo.train.running import AdapterReport, finite, open_run, passed, run_adapter, step_seed, steps_of
from edgegeo.train.settings import GpsSettings
from edgegeo.train.sources import Lessons, open_lessons

FORMS = ("answer", "reason", "caption")
NEW_TOKENS = {"answer": 24, "reason": 128, "caption": 0}
"""Tokens of a validation answer by form; a geo-caption takes hundreds, so only its loss is taken."""


def train_gps(settings: GpsSettings, progress: Progress = silent) -> AdapterReport:
    """Train a GPS adapter and write its folder; the base is never changed."""
    if settings.form not in FORMS:
        raise TrainingError(f"form must be one of {', '.join(FORMS)}, not {settings.form!r}")
    if not (settings.answer_weight > 0 and settings.lr > 0):  # NaN is neither
        raise TrainingError(f"answer_weight and lr must be above 0, not {settings.answer_weight} and {settings.lr}")
    opened = open_run(settings, progress)
    learner = opened.learner
    train, held = opened.world.in_turn(
        lambda: open_lessons(settings.data, learner.checkpoint.image, settings.form, opened.told)
    )
    attach_lora(learner, settings.lora)
    learned = learner.trainable
    masters = Masters(learned, settings.lr, settings.weight_decay, betas=(0.9, 0.999))
    settle(learner, settings.memory)
    new_tokens = NEW_TOKENS[settings.form] if settings.data.name == "planet" else 0
    photos = min(settings.validation_photos, len(held)) if new_tokens else 0
    return run_adapter(
        opened, train, held, masters, settings.lr, steps_of(settings.schedule, len(train)),
        step=Steps(settings, train, learner, [p for _, p in learned]),
        validate=lambda: validate.answers(learner, held, len(held), settings.answer_weight, new_tokens, photos),
        goal=gps_goal,
    )  # fmt: skip


class Steps:
    """The steps of a run by their number."""

    def __init__(self, settings: GpsSettings, train: Lessons, learner: Learner, learned: list[nn.Parameter]) -> None:
        self.settings, self.train, self.learner, self.learned = settings, train, learner, learned

    def __call__(self, number: int) -> dict[str, float]:
        """Leave the gradients of one step; its loss a token."""
        s, learner = self.settings, self.learner
        seed = step_seed(s.schedule.seed, number)
        rng = np.random.default_rng(seed)
        index = passed(number, s.schedule.batch, len(self.train), s.schedule.seed)
        lessons = self.train.lessons(index, rng)
        rows = [learner.writer.answer(one.picture, one.answer, s.answer_weight) for one in lessons]
        weights = sum(sum(row.weights) for row in rows)
        mine, told = list(learner.world.share(rows)), 0.0
        for start in range(0, len(mine), s.schedule.chunk):
            torch.manual_seed(seed + 7919 * (learner.world.rank * len(rows) + start))
            loss, _ = validate.answer_loss(learner, mine[start : start + s.schedule.chunk])
            (loss / weights).backward()
            told += float(loss.detach()) / weights
        learner.world.sum_gradients(self.learned)
        return {"loss": finite(learner.world.total(told))}


def gps_goal(scores: dict[str, float]) -> float:
    """What validation chooses by: the shares within 200, 750 and 2500 km, averaged; without answers, the loss."""
    if "gps_within_750_km" not in scores:
        return -scores["loss_a_token"]
    return sum(scores[f"gps_within_{km}_km"] for km in (200, 750, 2500)) / 3
