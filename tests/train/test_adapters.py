"""Adapter trainings on a tiny base: what learns, what stays, what is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import load_queries, merge_adapter
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.train.gps import train_gps
from edgegeo.train.losses import unit
from edgegeo.train.retriever import LatentQueries, contrastive_loss, train_retriever
from edgegeo.train.settings import GpsSettings, RetrieverSettings

QUICK = {"steps": 2, "batch": 4, "warmup": 1, "validate_every": 1, "threads": 1}


def test_lora_retriever_is_a_peft_folder_that_merges(base_folder: Path, data: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    settings = RetrieverSettings(out=tmp_path / "lora", checkpoint=base_folder, data=data, rank=2, alpha=16, **QUICK)
    report = train_retriever(settings)
    assert report.trainable > 0
    assert {"text_recall_at_1", "photo_recall_at_1"} <= set(report.validation)
    merged = merge_adapter(load_checkpoint(base_folder), settings.out)
    assert merged.difference < 1e-4 * max(1.0, merged.scale)
    config = (settings.out / "adapter_config.json").read_text()
    assert not any(str(path) in config for path in (tmp_path, base_folder))


def test_gps_adapter_is_a_peft_folder(base_folder: Path, data: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    settings = GpsSettings(out=tmp_path / "gps", checkpoint=base_folder, data=data, rank=2, **QUICK)
    assert "gps_within_750_km" in train_gps(settings).validation
    assert (settings.out / "adapter_model.safetensors").is_file()


def test_slq_writes_exactly_queries_and_scale(base_folder: Path, data: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    before = (base_folder / "model.safetensors").read_bytes()
    settings = RetrieverSettings(
        out=tmp_path / "slq", method="slq", checkpoint=base_folder, data=data, queries=3, **QUICK
    )
    assert train_retriever(settings).trainable == 3 * 32 + 1
    assert set(load_file(str(settings.out / "slq.safetensors"))) == {"queries", "log_scale"}
    assert load_queries(settings.out, 32).shape == (3, 32)
    assert (base_folder / "model.safetensors").read_bytes() == before


def test_slq_leaves_the_backbone_as_it_is(base_folder: Path, data: Any) -> None:
    from edgegeo.train.adapting import open_base

    settings = RetrieverSettings(out=Path("unused"), method="slq", checkpoint=base_folder, data=data, **QUICK)
    base = open_base(settings, lambda stage, done, total: None)
    before = {name: p.clone() for name, p in base.model.named_parameters()}
    slq = LatentQueries(3, 32, 0.07)
    optimiser = torch.optim.AdamW(slq.parameters(), lr=0.1)
    rng = np.random.default_rng(0)
    start = slq.queries.detach().clone()
    loss = contrastive_loss(base.model, base, slq.embed, slq.log_scale.exp(), True, np.arange(4), rng, True)
    loss.backward()
    optimiser.step()
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in base.model.named_parameters())
    assert slq.log_scale.grad is not None
    assert not torch.equal(slq.queries, start)


def test_slq_embedding_equals_one_text_at_a_time(base_folder: Path, data: Any) -> None:
    from edgegeo.models.reference import Reference
    from edgegeo.train.talk import Talk

    checkpoint = load_checkpoint(base_folder)
    talk = Talk(checkpoint.tokenizer, checkpoint.image, checkpoint.settings.prompts)
    torch.manual_seed(0)
    slq = LatentQueries(3, 32, 0.07)
    texts = ["A lake.", "A much longer description of a place with a lake."]
    rows = talk.padded([(talk.prompt("embed_text", texts=[talk.ids(text)]), 0) for text in texts], 64)
    with torch.no_grad():
        padded = slq.embed(checkpoint.model, rows, None).numpy()
    alone = Reference(checkpoint, checkpoint.model, slq.queries.detach().numpy()).embed_texts(texts)
    assert np.abs(padded - alone).max() < 1e-5
    assert unit(slq.queries).shape == (3, 32)


def test_settings_that_cannot_work_are_refused(base_folder: Path, data: Any) -> None:
    with pytest.raises(TrainingError, match="lora or slq"):
        train_retriever(RetrieverSettings(out=Path("x"), method="magic", data=data))
    with pytest.raises(TrainingError, match="batch"):
        train_gps(GpsSettings(out=Path("x"), checkpoint=base_folder, data=data, batch=1))
