"""The checkpoints that peers read: a whole SmolVLM, and its decoder alone as a Llama."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np


def write(size: str, folder: Path) -> None:
    """FOLDER/vlm, FOLDER/text and FOLDER/table.npy (token embeddings, float32), each complete or absent."""
    import torch
    from torch_modules import load

    folder.mkdir(parents=True, exist_ok=True)
    if size == "pocket":
        _packaged(folder / "vlm")
    else:
        import true_families

        true_families.write_checkpoint(size, folder / "vlm")
    with torch.inference_mode():
        model = load(folder / "vlm")
        _decoder(model, folder)
        table = model.get_input_embeddings().weight.numpy()
    np.save(folder / "draft.npy", table)
    (folder / "draft.npy").rename(folder / "table.npy")


def _packaged(place: Path) -> None:
    """The packaged model with its retrieval adapter merged, as transformers saves it."""
    from edgegeo.export.source import open_source
    from edgegeo.models.checkpoint import packaged_checkpoint

    open_source(None).roles["embed"].model.save_pretrained(place)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json",
                 "generation_config.json"):  # fmt: skip
        if (packaged_checkpoint() / name).is_file():
            shutil.copyfile(packaged_checkpoint() / name, place / name)
    settings = json.loads((packaged_checkpoint() / "edgegeo_model.json").read_text())
    settings.pop("adapters", None)  # merged already
    (place / "edgegeo_model.json").write_text(json.dumps(settings, indent=1))


def _decoder(model: Any, folder: Path) -> None:
    """The decoder as LlamaForCausalLM, for peers that read no vision-language model."""
    from transformers import LlamaForCausalLM

    place = folder / "text"
    text = model.config.text_config
    text.tie_word_embeddings = True
    text.architectures = ["LlamaForCausalLM"]
    llama = LlamaForCausalLM(text).eval()
    llama.model.load_state_dict(model.model.text_model.state_dict())
    llama.save_pretrained(place)
    config = json.loads((place / "config.json").read_text())
    # What transformers 4 reads instead of rope_parameters and dtype.
    config |= {"rope_theta": text.rope_parameters["rope_theta"], "torch_dtype": "float32"}
    (place / "config.json").write_text(json.dumps(config, indent=1))
    shutil.copyfile(folder / "vlm" / "tokenizer.json", place / "tokenizer.json")
    told = json.loads((folder / "vlm" / "tokenizer_config.json").read_text())
    marks = {name: told[name] for name in ("eos_token", "pad_token") if name in told}
    # transformers 4 does not know the class that transformers 5 writes, nor a vision-language model's processor.
    (place / "tokenizer_config.json").write_text(json.dumps(marks | {"tokenizer_class": "PreTrainedTokenizerFast"}))
