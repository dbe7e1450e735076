"""Preprocessing, one file per family: a picture becomes what its vision tower and its prompt need, without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.errors import ImageError
from edgegeo.runtime.image import to_rgb

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Instead:
    """Stands first in the layout of a picture whose own words change how the prompt's last word before it is written.

    table: last token id before the picture -> the ids in its place.
    """

    table: dict[int, tuple[int, ...]]

    def of(self, ids: Ids) -> Ids:
        """The run of ids before the picture, corrected."""
        swapped = self.table.get(int(ids[-1])) if len(ids) else None
        return ids if swapped is None else np.concatenate([ids[:-1], np.array(swapped, np.int64)])


Layout = tuple[Ids | int | Instead, ...]
"""What a picture is in a prompt, in order: runs of token ids (marks such as `<img>`), and counts of image tokens."""


@dataclass(frozen=True)
class Picture:
    """One prepared picture."""

    inputs: dict[str, NDArray[Any]]
    """Feeds of the vision graph: {"pixel_values": (tiles, 3, H, W) float32}, or what a family of native resolution
    needs, for this picture alone."""
    layout: Layout
    grid: tuple[int, int] | None = None
    """Rows and columns of image tokens, for rotary positions in time, height and width (M-RoPE)."""


@dataclass(frozen=True)
class ImageTokens:
    """A picture after the vision tower: what the decoder reads of it."""

    rows: NDArray[np.float32]
    """(tokens, hidden)."""
    layout: Layout
    grid: tuple[int, int] | None = None


def prepare_picture(image: Image.Image, spec: ImageSpec) -> Picture:
    """An upright `image` by the rule `spec.kind`, equal to the family's Hugging Face processor."""
    prepare: Callable[[Image.Image, ImageSpec], Picture] = _rule(spec).prepare
    return prepare(to_rgb(image), spec)


def most_positions(spec: ImageSpec) -> int:
    """Most prompt positions that one picture takes, marks included."""
    count: Callable[[ImageSpec], int] = _rule(spec).most_positions
    return count(spec)


def positions_of(layout: Layout) -> int:
    """Prompt positions of a layout."""
    return sum(part if isinstance(part, int) else len(part) for part in layout if not isinstance(part, Instead))


def whole_layout(spec: ImageSpec) -> Layout:
    """The layout of a picture that is not split: its image tokens between the marks "before" and "after"."""
    before, after = (np.array(spec.marks.get(name, ()), np.int64) for name in ("before", "after"))
    return tuple(part for part in (before, spec.tokens, after) if isinstance(part, int) or len(part))


def _rule(spec: ImageSpec) -> Any:
    """The module of `spec.kind`; imported by name so that a family's rule is one file here."""
    from importlib import import_module

    if spec.kind.isidentifier():
        try:
            return import_module(f"edgegeo.runtime.pictures.{spec.kind}")
        except ModuleNotFoundError:
            pass
    raise ImageError(f"this edgegeo doesn't know the image preprocessing '{spec.kind}'; update edgegeo")
