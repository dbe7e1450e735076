"""Which checkpoint an adapter was trained on, as far as its folder tells: shapes alone don't tell bases apart."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgegeo.errors import CheckpointError
from edgegeo.models.checkpoint import Checkpoint, read_json
from edgegeo.models.hub import repository_of

BASE_FILE = "edgegeo_base.json"
"""Beside an adapter that edgegeo trained: {"weights": {parameter: [numbers, ...]}}, a few of the base's own."""
MATRICES, NUMBERS = 16, 8
TOLERANCE = 2.0**-7
"""Relative; a matrix that was stored in bfloat16 or float16 in between moves by less than half of it."""
_LIBRARY = re.compile(r"transformers\.models\.(\w+)\.")


def record_base(model: Any, folder: Path) -> None:
    """Write a few numbers of the matrices that an adapter stands on, or of any where it changes none.

    Numbers rather than a hash: they stay comparable when the base is saved again in another type, or cut into files
    elsewhere. Matrices held in 4 bits are left out.
    """
    held = [(name, p) for name, p in model.named_parameters() if p.ndim == 2 and p.is_floating_point()]
    own = [(name, p) for name, p in held if "lora_" not in name]
    below = [(name, p) for name, p in own if ".base_layer." in name] or own
    chosen = [below[i] for i in _spread(len(below), MATRICES)]
    said = {_plain_name(name): [round(x, 9) for x in _numbers(p)] for name, p in chosen}
    (folder / BASE_FILE).write_text(json.dumps({"weights": said}, indent=1) + "\n", encoding="utf-8")


def require_base(checkpoint: Checkpoint, folder: Path) -> None:
    """CheckpointError where an adapter folder says that it belongs to another checkpoint; quiet where it doesn't tell.

    Compared are the numbers that `record_base` wrote; the family by the module of transformers that PEFT names; and the
    hub repository, where the checkpoint is a snapshot of one and the adapter names another of the same owner. Copies
    by others (quantised or mirrored ones) and folders have names of their own, which tell nothing.
    """
    _require_numbers(checkpoint, folder)
    file = folder / "adapter_config.json"
    config = read_json(file) if file.is_file() else {}
    mapping = config.get("auto_mapping")
    library = _LIBRARY.match(str(mapping.get("parent_library"))) if isinstance(mapping, dict) else None
    own = _LIBRARY.match(type(checkpoint.model).__module__)
    if library and own and library[1] != own[1] and library[1] not in checkpoint.family.model_types:
        raise CheckpointError(
            f"the adapter {folder} was trained on a '{library[1]}' model, {checkpoint.path} is of the family "
            f"{checkpoint.family.name}; name the checkpoint it belongs to"
        )
    named, here = str(config.get("base_model_name_or_path")), repository_of(checkpoint.path)
    if here and not _same_repository(named, here):
        raise CheckpointError(
            f"the adapter {folder} was trained on {named}, this checkpoint is {here}; name {named}, or change "
            f"base_model_name_or_path in {file.name} if they have the same weights"
        )


def _require_numbers(checkpoint: Checkpoint, folder: Path) -> None:
    file = folder / BASE_FILE
    if not file.is_file():
        return
    said = read_json(file).get("weights")
    if not isinstance(said, dict):
        raise CheckpointError(f"{file} holds no weights of a base; save the adapter again, or remove the file")
    for name, parameter in checkpoint.model.named_parameters():
        if name in said and parameter.ndim == 2:
            try:
                wanted = np.array(said[name], np.float64)
            except (TypeError, ValueError):
                wanted = np.empty(0)
            found = np.array(_numbers(parameter))
            if wanted.shape != found.shape or not np.allclose(found, wanted, rtol=TOLERANCE, atol=1e-6):
                raise CheckpointError(
                    f"the adapter {folder} was trained on other weights than those of {checkpoint.path} ({name} "
                    f"differs); name the checkpoint it belongs to, or remove {BASE_FILE} to use it here all the same"
                )


def _same_repository(named: str, here: str) -> bool:
    """Whether ORG/NAME may mean the repository `here`: a name that goes on ("-AWQ") is the model in another form."""
    owner, _, name = named.lower().partition("/")
    own, _, mine = here.lower().partition("/")
    return owner != own or name.startswith(mine) or mine.startswith(name)


def _plain_name(name: str) -> str:
    """A parameter's name in the model itself, without what PEFT writes around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _numbers(parameter: torch.Tensor) -> list[float]:
    flat = parameter.detach().reshape(-1)
    return [float(flat[i]) for i in _spread(flat.numel(), NUMBERS)]


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spread."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(most, count)).round())] if count else []
