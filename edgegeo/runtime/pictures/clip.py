"""CLIP: the shortest edge is resized with the aspect kept, then the centre is cropped: the borders are not seen."""

import numpy as np
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.runtime.pictures import Picture, positions_of, whole_layout
from edgegeo.runtime.pictures.pixels import normalised


def prepare(image: Image.Image, spec: ImageSpec) -> Picture:
    """`CLIPImageProcessorPil` of transformers 5.23, bit-equal: {"pixel_values": (1, 3, size, size)}.

    `spec.shortest_edge` is the resize, `spec.size` the crop. Where the crop is larger than the resized picture, black
    is put around it, as the processor does.
    """
    width, height = image.size
    edge = spec.shortest_edge
    # The longer side is cut, not rounded, as in `get_resize_output_image_size`.
    target = (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
    resized = image.resize(target, Image.Resampling(spec.resample))
    out = np.empty((1, 3, spec.size, spec.size), np.float32)
    normalised(_centre(resized, spec.size), spec, out[0])
    return Picture({"pixel_values": out}, whole_layout(spec))


def most_positions(spec: ImageSpec) -> int:
    """Positions of one picture in a prompt; a dual encoder has no prompt, and so none."""
    return positions_of(whole_layout(spec))


def _centre(image: Image.Image, size: int) -> Image.Image:
    """The middle square; an odd remainder goes to the right and below, as floor division has it."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    # Pillow fills what lies outside with black.
    return image.crop((left, top, left + size, top + size))
