"""Gradient caching: a batch in pieces has the gradients of the batch in one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from invented import quick

from edgegeo.train.adapting import attach_lora, open_learner, settle
from edgegeo.train.contrast import backward_in_chunks
from edgegeo.train.losses import info_nce
from edgegeo.train.parallel import World
from edgegeo.train.retriever import Retriever
from edgegeo.train.settings import Lora, Memory, RetrieverSettings
from edgegeo.train.sources import open_pairs

pytest.importorskip("peft")


def gradients(base_folder: Path, data: Any, chunk: int, dropout: float) -> tuple[float, dict[str, torch.Tensor]]:
    memory = Memory(dtype="fp32")
    settings = RetrieverSettings(out=Path("unused"), checkpoint=base_folder, data=data, learn_temperature=True)
    learner = open_learner(base_folder, quick(), memory, World())
    attach_lora(learner, Lora(rank=2, alpha=16, dropout=dropout))
    torch.manual_seed(0)
    for name, parameter in learner.trainable:  # an untrained LoRA's output is zero, and so are half its gradients
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    retriever = Retriever(learner, settings)
    settle(learner, memory)
    train, _ = open_pairs(data, learner.checkpoint.image, lambda stage, done, total: None)
    pairs = train.pairs(torch.arange(6).numpy(), None)
    rows = [learner.writer.side(side) for pair in pairs for side in (pair.target,)]
    rows += [learner.writer.side(pair.queries[0]) for pair in pairs]

    def loss(embedded: torch.Tensor) -> torch.Tensor:
        targets, queries = embedded.chunk(2)
        return info_nce(queries, targets, retriever.scale())

    value = backward_in_chunks(rows, retriever.embed, loss, chunk, 3, World())
    named = [*learner.trainable, *retriever.named_parameters()]
    return value, {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_a_batch_in_chunks_is_the_batch_in_one(base_folder: Path, data: Any, chunk: int) -> None:
    whole, wanted = gradients(base_folder, data, 100, dropout=0.0)
    value, got = gradients(base_folder, data, chunk, dropout=0.0)
    assert value == pytest.approx(whole, abs=1e-6)
    assert set(got) == set(wanted)
    assert "log_scale" in got
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-6, rtol=1e-4)


def test_both_passes_of_a_chunk_drop_the_same(base_folder: Path, data: Any) -> None:
    """With other masks in the second pass, gradients would belong to other embeddings; repeated runs would differ."""
    one = gradients(base_folder, data, 4, dropout=0.5)
    two = gradients(base_folder, data, 4, dropout=0.5)
    assert one[0] == two[0]
    assert all(torch.equal(two[1][name], gradient) for name, gradient in one[1].items())
    assert one[0] != gradients(base_folder, data, 4, dropout=0.0)[0]
