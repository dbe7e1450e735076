"""Pictures seen once: the same image tokens, no pixels, and not where the tower learns or memory lacks."""

from typing import Any

import numpy as np
import torch
from invented import quick

from edgegeo.models.family import Seen
from edgegeo.train.adapting import Learner, attach_lora, open_learner, settle
from edgegeo.train.parallel import World
from edgegeo.train.seen import SeenPairs, look_once
from edgegeo.train.settings import Lora, Memory
from edgegeo.train.sources import open_pairs

INDEX = np.array([6, 1, 3])


def opened(base_folder: Any, data: Any, targets: str | None) -> tuple[Learner, Any]:
    learner = open_learner(base_folder, quick(chunk=2), Memory("fp32"), World())
    if targets:
        attach_lora(learner, Lora(rank=2, alpha=16, dropout=0.0, dora=False, targets=targets))
    settle(learner, Memory("fp32"))
    return learner, open_pairs(data, learner.checkpoint.image, quiet)[0]


def quiet(*told: Any) -> None:
    """No progress."""


def test_pairs_hold_what_the_tower_says(base_folder: Any, data: Any) -> None:
    learner, source = opened(base_folder, data, "text")
    seen = look_once(source, learner, INDEX, 1, quiet)
    assert isinstance(seen, SeenPairs)
    assert (seen.fingerprint, seen.kinds) == (source.fingerprint, source.kinds)
    for plain, found in zip(source.pairs(INDEX[::-1], None), seen.pairs(INDEX[::-1], None), strict=True):
        assert found.queries[0] == plain.queries[0]
        for before, after in ((plain.queries[1], found.queries[1]), (plain.target, found.target)):
            assert isinstance(after, Seen)
            assert not after.inputs
            with torch.no_grad():
                wanted = learner.checkpoint.family.features(learner.model, [before])[0]
            torch.testing.assert_close(after.rows, wanted, rtol=1e-4, atol=1e-5)


def test_a_tower_that_learns_looks_every_time(base_folder: Any, data: Any) -> None:
    learner, source = opened(base_folder, data, "vision")
    assert look_once(source, learner, INDEX, 1, quiet) is source


def test_pictures_that_do_not_fit_are_not_kept(base_folder: Any, data: Any) -> None:
    learner, source = opened(base_folder, data, "text")
    assert look_once(source, learner, INDEX, 0, quiet) is source
