"""Every family learns: LoRA, latent queries and positions on tiny random checkpoints and small true data sets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented import quick
from PIL import Image
from tiny_families import FAMILIES, tiny_checkpoint

from edgegeo.errors import TrainingError
from edgegeo.models.adapters import hushed_peft, merge_adapter
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.reference import open_reference
from edgegeo.train.gps import train_gps
from edgegeo.train.reranker import train_reranker
from edgegeo.train.retriever import train_retriever
from edgegeo.train.settings import Data, GpsSettings, Lora, Memory, RerankerSettings, RetrieverSettings

pytest.importorskip("peft")
COLOURS = ("green", "red", "blue", "grey", "white", "black", "brown", "pink", "cyan", "gold", "tan", "navy")
SMALL = Lora(rank=4, alpha=32, dropout=0.0)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(request.param, tmp_path_factory.mktemp(request.param) / "tiny")


@pytest.fixture(scope="module")
def geotext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve buildings in GeoText-1652's form, each one colour; the pictures differ in size."""
    root = tmp_path_factory.mktemp("geotext")
    rows = []
    for number, colour in enumerate(COLOURS):
        name = f"{number:04d}/image-1.jpeg"
        (root / "train" / f"{number:04d}").mkdir(parents=True)
        Image.new("RGB", (48 + 8 * (number % 3), 56), colour).save(root / "train" / name)
        rows.append({"image_id": name, "image": f"train/{name}", "caption": f"a {colour} house",
                     "sentences": [None] * 3, "bboxes": [None] * 3})  # fmt: skip
    (root / "train.json").write_text(json.dumps(rows))
    return root


@pytest.fixture(scope="module")
def sharegpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos with positions in sharegpt's form."""
    root = tmp_path_factory.mktemp("sharegpt")
    rows = []
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (64, 48), colour).save(root / f"{number}.png")
        answer = f"<answer>{number * 5 - 30}.5, {number * 11 - 60}.25</answer>"
        turns = [{"role": "user", "content": "<image>\n\nWhere?"}, {"role": "assistant", "content": answer}]
        rows.append({"images": [f"{number}.png"], "conversations": turns})
    (root / "train.json").write_text(json.dumps(rows))
    return root


def falls(out: Path) -> tuple[float, float]:
    lines = (out.with_name(f"{out.name}.run") / "diary.jsonl").read_text().splitlines()
    losses = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
    return losses[0], float(np.mean(losses[-2:]))


def settings(kind: Any, out: Path, folder: Path, name: str, root: Path, **changes: Any) -> Any:
    given = {"schedule": quick(steps=8, batch=8, validate_every=8, save_every=8), "lr": 0.02, "lora": SMALL}
    given |= {"memory": Memory(dtype="fp32"), **changes}
    data = Data(name=name, root=root, places=10, validation=2)
    return kind(out=out, checkpoint=folder, data=data, **given)


def check_plain_peft(folder: Path, out: Path) -> None:
    """Without edgegeo, transformers and PEFT compute the same states from the adapter's folder."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    ids = torch.tensor([[5, 9, 12, 33, 40, 7]])
    plain = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad(), hushed_peft():
        before = plain(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        adapted = PeftModel.from_pretrained(plain, str(out)).eval()
        states = adapted(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    checkpoint = load_checkpoint(folder)
    wanted = checkpoint.family.hidden(merge_adapter(checkpoint, out).model, ids, [])
    assert float((states - wanted).abs().max()) < 1e-4
    assert float((states - before).abs().max()) > 1e-3


@pytest.mark.parametrize("method", ["lora", "slq"])
def test_retrieval(method: str, folder: Path, geotext: Path, tmp_path: Path) -> None:
    out = tmp_path / method
    report = train_retriever(settings(RetrieverSettings, out, folder, "geotext1652", geotext, method=method, queries=2))
    first, last = falls(out)
    assert last < first
    assert set(report.validation) == {f"query_recall_at_{k}" for k in (1, 5, 10)}
    embedded = open_reference(load_checkpoint(folder), out).embed_texts(["a green house"])
    if method == "lora":
        check_plain_peft(folder, out)
    base = open_reference(load_checkpoint(folder)).embed_texts(["a green house"])
    assert np.isfinite(embedded).all()
    assert np.abs(embedded - base).max() > 1e-3


def test_re_ranking(folder: Path, geotext: Path, tmp_path: Path) -> None:
    made = settings(
        RerankerSettings, tmp_path / "pairs", folder, "geotext1652", geotext, wrong=9, validation_places=2,
        temperature=10.0,  # cosines of random weights mean nothing
    )  # fmt: skip
    report = train_reranker(replace(made, schedule=quick(steps=12, batch=8, validate_every=12, save_every=12)))
    first, last = falls(tmp_path / "pairs")
    assert last < first
    assert {"query_told_apart", "query_right"} < set(report.validation)
    assert merge_adapter(load_checkpoint(folder), tmp_path / "pairs").moved > 0


def test_positions(folder: Path, sharegpt: Path, tmp_path: Path) -> None:
    out = tmp_path / "gps"
    made = settings(GpsSettings, out, folder, "sharegpt", sharegpt, answer_weight=2.0)
    report = train_gps(made)
    first, last = falls(out)
    assert last < first
    assert report.validation["loss_a_token"] > 0
    assert (out / "adapter_model.safetensors").is_file()


def test_checkpointing_and_bf16_learn_the_same_way(folder: Path, geotext: Path, tmp_path: Path) -> None:
    """Gradient checkpointing changes memory, not the result; bf16 only rounds."""
    plan = quick(steps=2, batch=4, validate_every=2)
    for name, memory in (("plain", Memory("fp32")), ("saved", Memory("fp32", checkpointing=True)), ("half", Memory())):
        train_retriever(
            settings(
                RetrieverSettings, tmp_path / name, folder, "geotext1652", geotext, memory=memory, schedule=plan,
            )
        )  # fmt: skip
    plain, saved, half = (falls(tmp_path / name) for name in ("plain", "saved", "half"))
    assert saved == pytest.approx(plain, abs=1e-5)
    assert half[0] == pytest.approx(plain[0], abs=0.1)


def test_data_that_cannot_be_used_is_told(folder: Path, geotext: Path, sharegpt: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no pairs to retrieve"):
        train_retriever(settings(RetrieverSettings, tmp_path / "x", folder, "sharegpt", sharegpt))
    with pytest.raises(TrainingError, match="no conversations"):
        train_gps(settings(GpsSettings, tmp_path / "x", folder, "geotext1652", geotext))
