"""An adapter folder that plain PEFT saved outside edgegeo: the bundle embeds as PEFT does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgegeo.bundle import open_bundle
from edgegeo.errors import CheckpointError
from edgegeo.evaluate import planet_scenes
from edgegeo.export import export
from edgegeo.models.adapters import hushed_peft
from edgegeo.models.checkpoint import load_checkpoint
from edgegeo.models.reference import Reference
from edgegeo.recipe import preset
from edgegeo.runtime import Embedder, Model


def saved(checkpoint: Path, folder: Path, **settings: Any) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    with hushed_peft():
        adapted = get_peft_model(load_checkpoint(checkpoint).model, LoraConfig(r=4, **settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("settings", [{}, {"use_dora": True, "use_rslora": True}], ids=["lora", "dora"])
def test_the_bundle_embeds_as_peft_does(checkpoint: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    from io import BytesIO

    from peft import PeftModel
    from PIL import Image

    adapter = saved(checkpoint, tmp_path / "adapter", target_modules=["q_proj", "k_proj", "gate_proj", "fc2"],
                    **settings)  # fmt: skip
    export(checkpoint, preset("fp32"), tmp_path / "bundle", adapters={"embed": adapter}, places=0)
    embedder = Embedder(Model(open_bundle(tmp_path / "bundle"), threads=1))
    opened = load_checkpoint(checkpoint)
    plain = Reference(opened, opened.model)
    scene = planet_scenes(1, "validation")[0]
    before = plain.embed_texts([scene.text])
    with hushed_peft():
        attached = PeftModel.from_pretrained(opened.model, adapter).eval()
    theirs = Reference(opened, attached.base_model.model)
    photo = Image.open(BytesIO(scene.photo)).convert("RGB")
    for got, wanted in (
        (embedder.texts([scene.text]), theirs.embed_texts([scene.text])),
        (embedder.images([scene.photo]), theirs.embed_images([photo])),
    ):
        assert float((got * wanted).sum()) > 0.99999
    assert float((before * theirs.embed_texts([scene.text])).sum()) < 0.99  # the adapter does something


def test_an_adapter_of_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = saved(checkpoint, tmp_path / "adapter", target_modules=["q_proj"])
    file = adapter / "adapter_model.safetensors"
    wide = {k: torch.cat([v, v], -1) if "lora_A" in k else v for k, v in load_file(file).items()}
    save_file({k: v.contiguous() for k, v in wide.items()}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="doesn't fit this checkpoint"):
        export(checkpoint, preset("int8"), tmp_path / "bundle", adapters={"generate": adapter}, places=0)
    assert not (tmp_path / "bundle").exists()


def test_pickled_adapters_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = saved(checkpoint, tmp_path / "adapter", target_modules=["q_proj"])
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin, which can run code.*safetensors only"):
        export(checkpoint, preset("int8"), tmp_path / "bundle", adapters={"embed": adapter}, places=0)
    assert np.all([not p.name.startswith("bundle") for p in tmp_path.iterdir()])
