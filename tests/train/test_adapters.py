"""Adapter trainings on a tiny base: what learns, what stays, what is written, and that it exports."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from invented import quick
from PIL import Image

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import load_queries, merge_adapter
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.reference import open_reference
from edgegeo.train.adapting import attach_lora, open_learner, save_lora, settle
from edgegeo.train.gps import train_gps
from edgegeo.train.parallel import World
from edgegeo.train.retriever import Retriever, train_retriever
from edgegeo.train.settings import GpsSettings, Lora, Memory, RetrieverSettings

pytest.importorskip("peft")
SMALL = Lora(rank=2, alpha=16)
EXACT = Memory(dtype="fp32")
TEXTS = ["A lake.", "A much longer description of a place with a lake."]


def photos() -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)) for _ in range(2)]


def test_lora_retriever_is_a_peft_folder_that_merges(base_folder: Path, data: Any, tmp_path: Path) -> None:
    settings = RetrieverSettings(out=tmp_path / "lora", checkpoint=base_folder, data=data, lora=SMALL, schedule=quick())
    report = train_retriever(settings)
    assert report.trainable > 0
    assert {"text_recall_at_1", "photo_recall_at_1"} <= set(report.validation)
    merged = merge_adapter(load_checkpoint(base_folder), settings.out)
    assert merged.difference < 1e-4 * max(1.0, merged.scale)
    config = (settings.out / "adapter_config.json").read_text()
    assert not any(str(path) in config for path in (tmp_path, base_folder))
    account = json.loads((tmp_path / "lora.run" / "run.json").read_text())
    assert account["reached"]["best_step"] == report.best_step
    assert len(account["facts"]["train"]) == 64


def test_gps_adapter_is_a_peft_folder(base_folder: Path, data: Any, tmp_path: Path) -> None:
    settings = GpsSettings(out=tmp_path / "gps", checkpoint=base_folder, data=data, lora=SMALL, schedule=quick())
    assert {"gps_within_750_km", "loss_a_token"} <= set(train_gps(settings).validation)
    assert (settings.out / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("method", ["slq", "hybrid"])
def test_queries_and_temperature_are_all_that_is_written(
    method: str, base_folder: Path, data: Any, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    before = (base_folder / "model.safetensors").read_bytes()
    settings = RetrieverSettings(
        out=tmp_path / "slq", method=method, checkpoint=base_folder, data=data, queries=3, lora=SMALL, schedule=quick()
    )
    report = train_retriever(settings)
    assert (report.trainable == 3 * 32 + 1) == (method == "slq")
    assert set(load_file(str(settings.out / "slq.safetensors"))) == {"queries", "log_scale"}
    assert load_queries(settings.out, 32).shape == (3, 32)
    assert (base_folder / "model.safetensors").read_bytes() == before
    if method == "hybrid":
        adapted = load_file(str(settings.out / "adapter_model.safetensors"))
        assert adapted
        assert all("vision_model" in name for name in adapted)


def test_queries_beside_a_lora_learn_at_their_own_rate(base_folder: Path, data: Any, tmp_path: Path) -> None:
    def trained(name: str, lr: float, queries_lr: float) -> np.ndarray:
        out = tmp_path / name
        train_retriever(
            RetrieverSettings(
                out=out, method="hybrid", checkpoint=base_folder, data=data, queries=3, lora=SMALL, schedule=quick(),
                lr=lr, queries_lr=queries_lr,
            )
        )  # fmt: skip
        return load_queries(out, 32)

    still = trained("still", 1e-9, 1e-9)
    assert np.abs(trained("lora", 1e-2, 1e-9) - still).max() < 1e-6
    assert np.abs(trained("queries", 1e-9, 1e-2) - still).max() > 5e-3


@pytest.mark.parametrize("pooling", ["eos", "mean", "last_k"])
def test_what_was_trained_is_what_is_exported(pooling: str, base_folder: Path, data: Any, tmp_path: Path) -> None:
    """Training, the torch reference and the bundle embed alike, for each pooling."""
    from edgegeo.export.pipeline import export_source
    from edgegeo.export.source import open_source
    from edgegeo.recipe import preset
    from edgegeo.runtime import Embedder

    settings = RetrieverSettings(
        out=tmp_path / "lora", checkpoint=base_folder, data=data, lora=SMALL, schedule=quick(), pooling=pooling, last=3
    )
    train_retriever(settings)
    wanted = open_reference(load_checkpoint(base_folder), settings.out)
    assert wanted.pooling == pooling
    export_source(open_source(base_folder, {"embed": settings.out}), preset("fp32"), tmp_path / "out", places=0)
    embedder = Embedder.open(tmp_path / "out")
    assert np.abs(embedder.texts(TEXTS) - wanted.embed_texts(TEXTS)).max() < 1e-4
    assert np.abs(embedder.images(photos()) - wanted.embed_images(photos())).max() < 1e-4


def test_a_hybrid_is_exported_with_its_queries_and_its_own_tower(base_folder: Path, data: Any, tmp_path: Path) -> None:
    from edgegeo.bundle import open_bundle
    from edgegeo.export.pipeline import export_source
    from edgegeo.export.source import open_source
    from edgegeo.recipe import preset
    from edgegeo.runtime import Embedder

    settings = RetrieverSettings(
        out=tmp_path / "both", method="hybrid", checkpoint=base_folder, data=data, queries=3, lora=SMALL,
        schedule=quick(validate_every=2), lr=0.05,
    )  # fmt: skip
    train_retriever(settings)
    wanted = open_reference(load_checkpoint(base_folder), settings.out)
    export_source(open_source(base_folder, {"embed": settings.out}), preset("fp32"), tmp_path / "out", places=0)
    roles = open_bundle(tmp_path / "out").manifest.roles
    assert roles.embed is not None
    assert roles.generate is not None
    assert roles.embed.pooling == "queries"
    assert roles.embed.trunk == roles.generate.trunk  # one decoder serves both
    assert np.abs(Embedder.open(tmp_path / "out").images(photos()) - wanted.embed_images(photos())).max() < 1e-4


def test_slq_leaves_every_parameter_of_the_backbone_bit_identical(base_folder: Path, data: Any) -> None:
    settings = RetrieverSettings(out=Path("unused"), method="slq", checkpoint=base_folder, data=data, queries=3)
    learner = open_learner(base_folder, quick(), EXACT, World())
    settle(learner, EXACT)
    before = {name: p.clone() for name, p in learner.model.named_parameters()}
    retriever = Retriever(learner, settings)
    optimiser = torch.optim.AdamW(retriever.parameters(), lr=0.1)
    start = [p.detach().clone() for p in retriever.parameters()]
    for _ in range(3):
        optimiser.zero_grad()
        embedded = retriever.embed([learner.writer.side(text) for text in TEXTS])
        (embedded[0] @ embedded[1] * retriever.scale()).backward()
        optimiser.step()
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in learner.model.named_parameters())
    assert [name for name, _ in retriever.named_parameters()] == ["queries", "log_scale"]
    assert all(not torch.equal(p, old) for p, old in zip(retriever.parameters(), start, strict=True))


@pytest.mark.parametrize("method", ["lora", "slq"])
def test_embedding_in_a_batch_equals_the_reference_alone(method: str, base_folder: Path, data: Any) -> None:
    from edgegeo.models.reference import Reference

    settings = RetrieverSettings(out=Path("unused"), method=method, checkpoint=base_folder, data=data, queries=3)
    learner = open_learner(base_folder, quick(), EXACT, World())
    settle(learner, EXACT)
    learner.model.eval()
    retriever = Retriever(learner, settings)
    with torch.no_grad():
        got = retriever.embed([learner.writer.side(text) for text in TEXTS]).numpy()
    queries = None if retriever.queries is None else retriever.queries.detach().numpy()
    alone = Reference(learner.checkpoint, learner.model, queries).embed_texts(TEXTS)
    assert np.abs(got - alone).max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "magic"}, "lora, slq, hybrid"),
        ({"pooling": "max"}, "eos, mean, last_k"),
        ({"method": "slq", "pooling": "mean"}, "leave pooling out"),
        ({"hard": 1.5}, "hard must be"),
        ({"hard": 0.5, "mine_every": 0}, "mine_every"),
        ({"initial_temperature": 0.0}, "initial_temperature"),
        ({"lr": -1.0}, "lr must be above"),
        ({"lr": float("nan")}, "lr must be above"),
        ({"schedule": quick(validate_every=0)}, "validate_every"),
        ({"schedule": quick(epochs=0.0)}, "epochs"),
        ({"schedule": quick(batch=1)}, "batch"),
        ({"memory": Memory(dtype="fp8")}, "bf16 or fp32"),
        ({"lora": Lora(targets="nothing.like.it")}, "targets"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    changes: dict[str, Any], said: str, base_folder: Path, data: Any, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"checkpoint": base_folder, "data": data, "schedule": quick(), **changes}
    with pytest.raises(TrainingError, match=said):
        train_retriever(RetrieverSettings(out=tmp_path / "x", **given))


def test_weights_that_half_precision_cannot_hold_are_saved_whole(base_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    learner = open_learner(base_folder, quick(), EXACT, World())
    attach_lora(learner, SMALL)
    for largest, dtype in ((60_000.0, torch.float16), (70_000.0, torch.float32)):
        weights = {name: p.detach().float() for name, p in learner.trainable}
        weights[next(iter(weights))].fill_(largest)
        save_lora(learner.adapted, weights, tmp_path / str(dtype))
        saved = load_file(tmp_path / str(dtype) / "adapter_model.safetensors")
        assert {tensor.dtype for tensor in saved.values()} == {dtype}
        assert max(float(tensor.max()) for tensor in saved.values()) == pytest.approx(largest, rel=1e-3)


def test_a_lora_learns_where_it_is_put(base_folder: Path) -> None:
    for towers, inside in (("vision", "vision_model"), ("text", "text_model")):
        learner = open_learner(base_folder, quick(), EXACT, World())
        attach_lora(learner, SMALL, towers)
        assert learner.trainable
        assert all(inside in name for name, _ in learner.trainable)
        assert learner.sees_learning == (towers == "vision")
