"""Whether a picture has anything to tell a place by: grey walls, noise and blurred close-ups have not.

A few statistics of the pixels, and a fitted line between photos and pictures that show nothing.
"""

import numpy as np
from PIL import Image

from edgegeo.runtime.fusion import Linear
from edgegeo.runtime.sphere import Doubles

FEATURES = ("contrast", "detail", "grain", "colour", "layout")
_SIDE = 64


def statistics(image: Image.Image) -> dict[str, float]:
    """Five numbers of a picture of any size, scaled down to 64 pixels.

    contrast: spread of the brightness. detail: difference of neighbours. grain: how unlike neighbours are, compared
    with pixels further away (1 in pure noise). colour: spread of the hues. layout: contrast left at 8 x 8 pixels.
    """
    small = np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64) / 255
    grey = small.mean(axis=2)
    spread = float(grey.std())
    detail = float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2
    coarse = grey.reshape(8, 8, 8, 8).mean(axis=(1, 3))
    return {
        "contrast": float(np.log(spread + 1e-3)),
        "detail": float(np.log(detail + 1e-4)),
        "grain": detail / (spread + 1e-3),
        "colour": float((small - grey[..., None]).std()),
        "layout": float(coarse.std()) / (spread + 1e-3),
    }


def has_cue(image: Image.Image, cue: Linear) -> bool:
    """Whether the fitted line takes a picture for one with something to see."""
    return cue_score(statistics(image), cue) > 0


def cue_score(values: dict[str, float], cue: Linear) -> float:
    """Above 0: something to go by."""
    as_arrays: dict[str, Doubles] = {name: np.array(value) for name, value in values.items()}
    return float(cue(as_arrays))
