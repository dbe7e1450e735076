"""A subject small enough to work out by hand: it sees the colour of a picture, and reads colours from words."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgegeo.errors import BundleError
from edgegeo.evaluate.subject import Said
from edgegeo.runtime.answer import parse_answer


class Colours:
    """Embeds the mean colour, and answers with what `says` has for it."""

    name, kind, batch = "colours", "bundle", 3

    def __init__(self, says: dict[int, str] | None = None, most_words: int = 9) -> None:
        self.says = says
        self.most_words = most_words
        self.called: list[int] = []
        self.asked = 0

    def about(self, role: str) -> dict[str, Any]:
        return {"role": role}

    def check(self, role: str) -> None:
        if role == "generate" and self.says is None:
            raise BundleError("colours offers no GPS generation")

    def fault(self, text: str) -> str | None:
        return f"more than {self.most_words} words" if len(text.split()) > self.most_words else None

    def prepare(self, image: Image.Image) -> Any:
        return np.asarray(image, np.float64).reshape(-1, 3).mean(axis=0)

    def texts(self, texts: Sequence[str]) -> Any:
        return unit([[float(word) for word in text.split()[:3]] for text in texts])

    def images(self, prepared: Sequence[Any]) -> Any:
        self.called.append(len(prepared))
        return unit(prepared)

    def answers(self, prepared: Sequence[Any]) -> list[Said]:
        assert self.says is not None
        self.asked += 1
        written = [self.says[round(float(one[0]))] for one in prepared]
        return [(text, parse_answer(text)) for text in written]


def unit(rows: Any) -> Any:
    vectors = np.asarray(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def paint(path: Path, *colour: int) -> Path:
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (*colour, 0, 0)[:3]).save(path)
    return path


def turned(degrees: float) -> str:
    """Words for a colour at an angle between red and green: cosines of such are easily told."""
    angle = math.radians(degrees)
    return f"{100 * math.cos(angle):.6f} {100 * math.sin(angle):.6f} 0"
