"""The weights of a checkpoint in memory: one copy, and float32 arithmetic whatever they are stored in.

Small models are loaded in float32. A large one keeps the type it is stored in, and each of its modules widens its own
parameters for as long as it runs: one decoder layer at a time, and of the embedding table only the rows asked for.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgegeo.errors import CheckpointError

FULL_BYTES = 3 << 30
"""Models that take no more than this in float32 are loaded so."""
BLOCK_BYTES = 1 << 30
"""Modules that take no more than this in float32 are widened whole, larger ones child by child."""
INDEX = "model.safetensors.index.json"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
SIZES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Stored:
    """What the safetensors files of a checkpoint hold, from their headers alone."""

    parameters: int
    bytes: int
    dtype: torch.dtype
    """The type most of them are stored in."""

    @property
    def lean(self) -> bool:
        """Whether the weights stay in their stored type."""
        return self.parameters * 4 > FULL_BYTES

    @property
    def loaded_dtype(self) -> torch.dtype:
        """The type they are loaded in."""
        return self.dtype if self.lean else torch.float32


def stored_weights(folder: Path) -> Stored:
    """Read the headers of a checkpoint's safetensors files.

    CheckpointError for a shard that the index names and the folder lacks, a file that is cut off or no safetensors,
    and types that edgegeo does not widen (8-bit floats, packed integers).
    """
    files = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    if index.is_file():
        try:
            named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index} can't be read ({error}); download or save the checkpoint again") from None
        lacking = [name for name in named if not (folder / name).is_file()]
        if lacking:
            raise CheckpointError(
                f"{folder} lacks {', '.join(lacking[:3])}, which {INDEX} names; download the checkpoint again"
            )
        files = [folder / name for name in named]
    counts = dict.fromkeys(DTYPES, 0)
    for file in files:
        for kind, count in read_header(file).items():
            if kind not in counts:
                raise CheckpointError(f"{file} holds {kind} weights; save the model as bfloat16, float16 or float32")
            counts[kind] += count
    size = sum(SIZES[name] * count for name, count in counts.items())
    return Stored(sum(counts.values()), size, DTYPES[max(counts, key=counts.__getitem__)])


def read_header(file: Path) -> dict[str, int]:
    """Numbers held by a safetensors file, by type; integer tensors of small buffers are left out."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= 100 << 20:
                raise ValueError("its header has an impossible length")
            header = json.loads(stream.read(length))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        end = max((int(entry["data_offsets"][1]) for entry in entries), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is no safetensors file ({error}); download or save it again") from None
    if file.stat().st_size != 8 + length + end:
        raise CheckpointError(
            f"{file} has {file.stat().st_size} bytes instead of {8 + length + end}: it was cut off; download it again"
        )
    counts: dict[str, int] = {}
    for entry in entries:
        kind, number = str(entry["dtype"]), 1
        for side in entry["shape"]:
            number *= int(side)
        if kind not in ("I64", "I32", "BOOL") or number > 1 << 20:
            counts[kind] = counts.get(kind, 0) + number
    return counts


def is_lean(model: nn.Module) -> bool:
    """Whether a model keeps its weights as they are stored: too large to hold float32 copies of its matrices."""
    return sum(p.numel() for p in model.parameters()) * 4 > FULL_BYTES


def widen_as_it_runs(model: nn.Module) -> None:
    """Make every module of a model compute in float32 without keeping its large parameters so.

    Vectors, convolutions and what lies directly in large modules become float32 for good: they are small, and
    transformers takes the type of a tower's input from its first parameter. Calling it again covers modules that came
    later.
    """
    for module in list(model.modules()):
        large = _float32_bytes(module) > BLOCK_BYTES
        for name, parameter in list(module._parameters.items()):
            if (
                parameter is not None
                and parameter.is_floating_point()
                and (parameter.ndim != 2 or (large and any(True for _ in module.children())))
            ):
                module._parameters[name] = _wide(parameter)
        if hasattr(module, "scalar_embed_scale"):
            # Gemma's factor of the token embeddings, which loading has rounded to the stored type.
            factor: Any = module.scalar_embed_scale
            module.embed_scale = torch.tensor(float(factor))
        if isinstance(module, nn.Embedding):
            _hook(module, _take_rows, _put_back)
        elif not large or not any(True for _ in module.children()):
            _hook(module, _widen, _put_back)


def shared_view(model: Any) -> Any:
    """The same model with modules of its own and the very same tensors: changing its modules leaves `model` alone."""
    tensors = {id(t): t for t in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, tensors)


def _hook(module: nn.Module, before: Any, after: Any) -> None:
    if before not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(before)
        module.register_forward_hook(after, always_call=True)


def _float32_bytes(module: nn.Module) -> int:
    return 4 * sum(p.numel() for p in module.parameters())


def _wide(parameter: Tensor) -> nn.Parameter:
    if parameter.dtype == torch.float32:
        return parameter if isinstance(parameter, nn.Parameter) else nn.Parameter(parameter, requires_grad=False)
    return nn.Parameter(parameter.detach().float(), requires_grad=False)


def _narrow(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for owner in module.modules():
        if isinstance(owner, nn.Embedding) and owner is not module:
            continue  # takes its own rows when it runs
        for name, parameter in owner._parameters.items():
            if parameter is not None and parameter.is_floating_point() and parameter.dtype != torch.float32:
                yield owner, name, parameter


def _widen(module: nn.Module, _: Any) -> None:
    """Before a module runs: its parameters in float32, unless a module around it has already done so."""
    held = list(_narrow(module))
    for owner, name, parameter in held:
        owner._parameters[name] = _wide(parameter)
    _stack(module).append(held)


def _take_rows(module: nn.Embedding, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Before a table runs: only the rows asked for, in float32, under ids of their own."""
    table, padding = module._parameters["weight"], module.padding_idx
    assert table is not None
    if table.dtype == torch.float32 or not args:
        _widen(module, args)
        return None
    rows, ids = torch.unique(args[0], return_inverse=True)
    module._parameters["weight"] = nn.Parameter(table.detach()[rows].float(), requires_grad=False)
    module.padding_idx = None
    _stack(module).append([(module, "weight", table), padding])
    return (ids, *args[1:])


def _put_back(module: nn.Module, _: Any, __: Any) -> None:
    held = _stack(module).pop() if _stack(module) else []
    for entry in held:
        if isinstance(entry, tuple):
            owner, name, parameter = entry
            owner._parameters[name] = parameter
        else:
            module.padding_idx = entry


def _stack(module: nn.Module) -> list[Any]:
    held: list[Any] = module.__dict__.setdefault("_edgegeo_held", [])
    return held
