"""What an export would write, before it writes it: components, who shares them, and their size."""

from dataclasses import dataclass
from typing import Any

from edgegeo.export.components import layout, module, precision
from edgegeo.export.source import Source
from edgegeo.recipe import BLOCKS, BYTES, Recipe


@dataclass(frozen=True)
class Planned:
    """One component to be written."""

    name: str
    kind: str
    precision: str
    roles: tuple[str, ...]
    """Roles that share it."""
    megabytes: float
    """Estimated size of its weights (2**20 bytes), within a few percent."""


def plan(source: Source, recipe: Recipe) -> tuple[Planned, ...]:
    """The components of a bundle and the token-embedding table, from the weights alone: nothing is built."""
    parts = layout(source)
    out = []
    for name, part in parts.parts.items():
        stored = precision(part.kind, recipe)
        roles = tuple(role for role, kinds in parts.roles.items() if name in kinds.values())
        size = stored_bytes(module(part.kind, part.modules), stored, recipe.block_size)
        out.append(Planned(name, part.kind, stored, roles, size / 2**20))
    if source.checkpoint.family.text:
        return tuple(out)  # the text tower holds the table
    table = source.checkpoint.model.get_input_embeddings().weight
    size = table.numel() * BYTES[recipe.embeddings]
    out.append(Planned("embed_tokens", "table", recipe.embeddings, tuple(parts.roles), size / 2**20))
    return tuple(out)


def stored_bytes(part: Any, precision: str, block: int) -> float:
    """Matrices at their precision with their scales, everything else as float32."""
    import torch

    total = 4.0 * sum(p.numel() for p in part.parameters())
    for layer in part.modules():
        if isinstance(layer, torch.nn.Linear):
            rows, columns = layer.weight.shape
            blocks = 4 * rows * -(-columns // block)
            scales = {"int8": 4 * rows, "nf4": blocks, **dict.fromkeys(BLOCKS, blocks)}.get(precision, 0)
            total += layer.weight.numel() * (BYTES[precision] - 4.0) + scales
    return total
