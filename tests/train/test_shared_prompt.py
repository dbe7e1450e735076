"""Candidates behind one reading of the query: the states and gradients of pairs read in full."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from invented import quick
from PIL import Image
from tiny_families import FAMILIES, tiny_checkpoint

from edgegeo.runtime.pictures import prepare_picture
from edgegeo.train.adapting import Learner, attach_lora, open_learner, settle
from edgegeo.train.parallel import World
from edgegeo.train.reranker import Judge
from edgegeo.train.sequences import Row
from edgegeo.train.settings import Lora, Memory
from edgegeo.train.shared_prompt import can_share

pytest.importorskip("peft")
SHARED = {"smolvlm", "internvl"}


def opened(family: str, folder: Path, memory: Memory) -> Learner:
    learner = open_learner(tiny_checkpoint(family, folder / "tiny"), quick(), memory, World())
    attach_lora(learner, Lora(rank=2, alpha=16, dropout=0.0, dora=False))
    settle(learner, memory)
    for name, parameter in learner.trainable:  # a LoRA begins at nothing, and then half of its gradients are 0
        torch.manual_seed(len(name))
        torch.nn.init.normal_(parameter, std=0.1)
    return learner


def asked(learner: Learner) -> list[list[Row]]:
    """Two texts of different lengths and a picture, three candidates each; one candidate is of another shape."""
    rng = np.random.default_rng(3)
    shapes = [(48, 56), (48, 56), (96, 40), (56, 48)]
    pictures = [
        prepare_picture(Image.fromarray(rng.integers(0, 255, (*shape, 3), np.uint8)), learner.checkpoint.image)
        for shape in shapes
    ]
    queries = ["a farm", "a village beside the water, with a church to the north", pictures[3]]
    return [[learner.writer.pair(query, picture) for picture in pictures[:3]] for query in queries]


def margins(learner: Learner, share: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any]]:
    monkeypatch.setattr("edgegeo.train.reranker.can_share", lambda learner: share)
    found = Judge(learner)(asked(learner))
    (found * torch.arange(1.0, 10.0).view(3, 3)).sum().backward()
    gradients = [parameter.grad for _, parameter in learner.trainable]
    for _, parameter in learner.trainable:
        parameter.grad = None
    return found.detach(), gradients


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in SHARED])
def test_margins_and_gradients_are_those_of_pairs_read_in_full(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = opened(family, tmp_path, Memory("fp32"))
    assert can_share(learner)
    whole, wanted = margins(learner, False, monkeypatch)
    shared, got = margins(learner, True, monkeypatch)
    assert float(whole.std()) > 1e-4  # candidates and queries do tell
    torch.testing.assert_close(shared, whole, rtol=1e-4, atol=1e-5)
    assert sum(grad is not None and float(grad.abs().max()) > 0 for grad in wanted) > 4
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in SHARED])
def test_other_positions_and_masks_are_read_in_full(family: str, tmp_path: Path) -> None:
    assert not can_share(opened(family, tmp_path, Memory("fp32")))


def test_checkpointing_keeps_nothing_to_share(tmp_path: Path) -> None:
    assert not can_share(opened("smolvlm", tmp_path, Memory("fp32", checkpointing=True)))
