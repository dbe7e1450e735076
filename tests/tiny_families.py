"""A tiny checkpoint folder of every family with a decoder."""

from importlib import import_module
from pathlib import Path

FAMILIES = ("smolvlm", "internvl", "qwen2_5_vl", "gemma3")
_HOMES = {"internvl": "tiny_internvl", "qwen2_5_vl": "tiny_qwen", "gemma3": "tiny_gemma"}


def tiny_checkpoint(family: str, folder: Path) -> Path:
    """Write the checkpoint with random weights."""
    if family == "smolvlm":
        return _smolvlm(folder)
    home = import_module(_HOMES[family])
    written: Path = home.save_checkpoint(home.make_model(), folder)
    return written


def _smolvlm(folder: Path) -> Path:
    import torch

    from edgegeo.planet import DEFAULT_SEED
    from edgegeo.train.settings import Shape
    from edgegeo.train.skeleton import new_model, save_checkpoint, train_tokenizer
    from edgegeo.train.talk import corpus

    tokenizer = train_tokenizer([*corpus(()), "a green field beside a river, houses with red roofs"], 512)
    shape = Shape(image_size=32, hidden=32, vision_layers=1, text_layers=2, kv_heads=1, ffn=32, vocab=512)
    torch.manual_seed(7)
    save_checkpoint(folder, new_model(shape, tokenizer), tokenizer, shape, DEFAULT_SEED)
    return folder
