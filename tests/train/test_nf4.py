"""QLoRA: the decoder's frozen matrices in four bits, and adapters that learn around them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from invented import quick
from tiny_families import FAMILIES, tiny_checkpoint

from edgegeo.models.adapters import merge_adapter
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.train.adapting import attach_lora, open_learner, settle
from edgegeo.train.gps import train_gps
from edgegeo.train.parallel import World
from edgegeo.train.retriever import train_retriever
from edgegeo.train.settings import GpsSettings, Lora, Memory, RetrieverSettings

bnb = pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")
SMALL = Lora(rank=2, alpha=16, dropout=0.0)
NF4 = Memory(nf4=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_matrices_take_a_quarter_and_compute_nearly_the_same(family: str, tmp_path: Path) -> None:
    folder = tiny_checkpoint(family, tmp_path / family)
    states = []
    for memory in (Memory(), NF4):
        learner = open_learner(folder, quick(), memory, World())
        attach_lora(learner, SMALL)
        settle(learner, memory)
        with torch.no_grad():
            states.append(learner.states([learner.writer.side("a green field")])[0].float())
        small = [m for m in learner.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
        assert bool(small) == memory.nf4
        assert all(m.weight.dtype == torch.uint8 for m in small)
        assert all(p.dtype == torch.bfloat16 for name, p in learner.trainable)
    closeness = torch.nn.functional.cosine_similarity(states[0][0, :3], states[1][0, :3], dim=-1)
    assert 0.9 < closeness.min() < 0.99999


@pytest.mark.parametrize("method", ["lora", "slq", "gps"])
def test_every_method_learns(method: str, base_folder: Path, data: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "out": tmp_path / "x", "checkpoint": base_folder, "data": data, "lora": SMALL, "schedule": quick(),
        "memory": NF4,
    }  # fmt: skip
    if method == "gps":
        train_gps(GpsSettings(**given))
    else:
        train_retriever(RetrieverSettings(**given, method=method, queries=2))
    if method != "slq":
        merged = merge_adapter(load_checkpoint(base_folder), tmp_path / "x")  # onto the base as it is, not as rounded
        assert merged.moved > 0
    assert replace(NF4, nf4=False) == Memory()
