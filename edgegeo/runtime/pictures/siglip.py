"""SigLIP and SigLIP 2 of fixed resolution: one resampling to a square, the aspect not kept."""

import numpy as np
from PIL import Image

from edgegeo.bundle import ImageSpec
from edgegeo.runtime.pictures import Picture, positions_of, whole_layout
from edgegeo.runtime.pictures.pixels import normalised


def prepare(image: Image.Image, spec: ImageSpec) -> Picture:
    """`SiglipImageProcessorPil` of transformers 5.23, bit-equal: {"pixel_values": (1, 3, size, size)}."""
    square = image.resize((spec.size, spec.size), Image.Resampling(spec.resample))
    out = np.empty((1, 3, spec.size, spec.size), np.float32)
    normalised(square, spec, out[0])
    return Picture({"pixel_values": out}, whole_layout(spec))


def most_positions(spec: ImageSpec) -> int:
    """Positions of one picture in a prompt; a dual encoder has no prompt, and so none."""
    return positions_of(whole_layout(spec))
