"""Pictures that show nothing to tell a place by, made to fit and to test the check for them."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from edgegeo.evaluate.logistic import logistic
from edgegeo.runtime.cue import FEATURES, cue_score, statistics
from edgegeo.runtime.fusion import Linear

KINDS = ("grey", "noise", "close-up", "wall")
_SIDE = 256


def blank_pictures(count: int, seed: int, photos: Sequence[bytes] = ()) -> list[Image.Image]:
    """`count` pictures of KINDS in turn: even grey, pixel noise, blurred close-ups of `photos`, walls with shade."""
    rng = np.random.default_rng(seed)
    makers = (_grey, _noise, _close_up, _wall)
    return [makers[i % len(makers)](rng, photos) for i in range(count)]


def fit_cue(photos: Sequence[Any], blanks: Sequence[Image.Image]) -> Linear:
    """The line between photos and pictures that show nothing, set so that hardly a photo is refused."""
    seen = [statistics(_opened(p)) for p in photos]
    void = [statistics(p) for p in blanks]
    rows = [*seen, *void]
    features = {name: np.array([row[name] for row in rows]) for name in FEATURES}
    line = logistic(features, np.array([1.0] * len(seen) + [0.0] * len(void)))
    # The 0.5 % of photos with the lowest scores are the price; a missed blank picture still meets the other checks.
    kept = float(np.quantile([cue_score(row, line) for row in seen], 0.005))
    shift = min(0.0, kept - 1e-6) if kept < 0 else 0.0
    return Linear(line.features, line.weights, line.bias - shift)


def _opened(photo: Any) -> Image.Image:
    return Image.open(BytesIO(photo)) if isinstance(photo, bytes) else Image.open(photo)


def _grey(rng: np.random.Generator, photos: Sequence[bytes]) -> Image.Image:
    colour = np.clip(rng.uniform(0, 255) + rng.normal(0, 8, 3), 0, 255)
    pixels = colour + rng.normal(0, rng.uniform(0, 4), (_SIDE, _SIDE, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _noise(rng: np.random.Generator, photos: Sequence[bytes]) -> Image.Image:
    grain = 2 ** int(rng.integers(0, 3))
    side = _SIDE // grain
    pixels = rng.integers(0, 256, (side, side, 3 if rng.random() < 0.5 else 1)).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (side, side, 3)).copy()).resize(
        (_SIDE, _SIDE), Image.Resampling.NEAREST
    )


def _close_up(rng: np.random.Generator, photos: Sequence[bytes]) -> Image.Image:
    if not photos:
        return _wall(rng, photos)
    whole = _opened(photos[int(rng.integers(len(photos)))]).convert("RGB")
    side = max(4, int(min(whole.size) * rng.uniform(0.03, 0.08)))
    left, top = (int(rng.integers(0, max(1, length - side))) for length in whole.size)
    part = whole.crop((left, top, left + side, top + side)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return part.filter(ImageFilter.GaussianBlur(float(rng.uniform(8, 24))))


def _wall(rng: np.random.Generator, photos: Sequence[bytes]) -> Image.Image:
    x, y = np.meshgrid(np.linspace(-1, 1, _SIDE), np.linspace(-1, 1, _SIDE))
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(5, 60)
    shade = rng.uniform(60, 200) + depth * (np.cos(angle) * x + np.sin(angle) * y)
    pixels = shade[..., None] + rng.normal(0, 6, 3) + rng.normal(0, rng.uniform(0, 3), (_SIDE, _SIDE, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
