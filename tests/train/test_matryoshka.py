"""Embeddings whose first numbers serve alone: the loss, what an adapter records, what a bundle offers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgegeo.bundle import open_bundle
from edgegeo.errors import CheckpointError, InputError, TrainingError
from edgegeo.models.adapters import EMBEDDING_CONFIG, load_matryoshka
from edgegeo.train.losses import info_nce, nested, unit
from edgegeo.train.retriever import train_retriever
from edgegeo.train.settings import RetrieverSettings, Schedule


def test_the_loss_is_summed_over_prefixes_and_the_whole() -> None:
    torch.manual_seed(0)
    queries, keys = unit(torch.randn(5, 8)), unit(torch.randn(5, 8))

    def loss(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return info_nce(one, other, 10.0)

    assert torch.equal(nested(queries, keys, (), loss), loss(queries, keys))
    parts = [loss(queries, keys)]
    for dim in (2, 4):
        one, other = (rows[:, :dim] / rows[:, :dim].norm(dim=1, keepdim=True) for rows in (queries, keys))
        parts.append(loss(one, other))
    assert float(nested(queries, keys, (2, 4), loss)) == pytest.approx(float(sum(parts)), rel=1e-6)


def test_an_adapter_records_its_lengths(tmp_path: Path) -> None:
    assert load_matryoshka(tmp_path) == ()
    (tmp_path / EMBEDDING_CONFIG).write_text(json.dumps({"pooling": "eos", "matryoshka": [64, 32, 64]}))
    assert load_matryoshka(tmp_path) == (32, 64)
    for wrong in (["a"], 3, [0], [True]):
        (tmp_path / EMBEDDING_CONFIG).write_text(json.dumps({"matryoshka": wrong}))
        with pytest.raises(CheckpointError, match="write a list of numbers of dimensions"):
            load_matryoshka(tmp_path)


def settings(out: Path, base: Path, data: Any, **more: Any) -> RetrieverSettings:
    schedule = Schedule(steps=2, batch=4, chunk=8, warmup=1, validate_every=2, save_every=100)
    return RetrieverSettings(
        out=out, method="slq", checkpoint=base, data=data, queries=2, schedule=schedule, **more
    )  # fmt: skip


def test_a_trained_length_is_offered_by_the_bundle_and_no_other(base_folder: Path, data: Any, tmp_path: Path) -> None:
    from edgegeo.export.pipeline import export_source
    from edgegeo.export.source import open_source
    from edgegeo.recipe import preset
    from edgegeo.runtime import Embedder

    train_retriever(settings(tmp_path / "queries", base_folder, data, matryoshka=(8, 16)))
    export_source(open_source(base_folder, {"embed": tmp_path / "queries"}), preset("fp32"), tmp_path / "out", places=0)
    bundle = open_bundle(tmp_path / "out")
    assert bundle.manifest.roles.embed is not None
    assert bundle.manifest.roles.embed.matryoshka == (8, 16)
    whole, short = Embedder.open(bundle), Embedder.open(bundle, dims=8)
    vectors = whole.texts(["a lake", "a village by a lake"])
    cut = vectors[:, :8] / np.linalg.norm(vectors[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short.texts(["a lake", "a village by a lake"]), cut, atol=1e-6)
    assert short.dim == 8
    assert short.embedding_id != whole.embedding_id
    assert Embedder.open(bundle, dims=whole.dim).embedding_id == whole.embedding_id
    with pytest.raises(InputError, match=r"may have 8, 16, \d+ dimensions, not 12"):
        Embedder.open(bundle, dims=12)


def test_lengths_beyond_the_model_are_refused(base_folder: Path, data: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="matryoshka holds numbers of dimensions from 1 to"):
        train_retriever(settings(tmp_path / "queries", base_folder, data, matryoshka=(8, 4096)))
