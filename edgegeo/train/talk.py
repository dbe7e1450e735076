"""Words of training: captions, questions and answers, positions and pairs as token ids with labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegeo.bundle import ImageSpec
from edgegeo.models.prompts import fill_ids, segments
from edgegeo.runtime.pictures import whole_layout
from edgegeo.train.data import Words
from edgegeo.train.skeleton import END, IMAGE, NO, PAD, PROMPTS, YES

NOT_ASKED = -100
# A photo does not tell where north is, and things behind the camera can't be seen.
HIDDEN_IN_PHOTO = ("side", "road direction", "second landmark", "crossing")
Generator = np.random.Generator


@dataclass(frozen=True)
class Sequences:
    """Right-padded token ids (N, T), what is asked of them (labels, -100 elsewhere) and their lengths (N)."""

    ids: Tensor
    labels: Tensor
    lengths: Tensor


def gps_answer(lat: float, lon: float) -> str:
    """The answer in GeoLocSFT's tag form; signs and zeros are written, so that every digit has its own place."""
    return f"<answer>{lat:+05.1f}, {lon:+06.1f}</answer>"


def corpus(words: Iterable[Words]) -> list[str]:
    """Texts that a tokenizer for these places should know."""
    texts = [caption for one in words for caption in one.captions[:4]]
    texts += [f"{key}?{END}{value}" for one in words for key, value in one.facts.items()]
    prompts = [prompt.replace("{image}", "").replace("{text}", "") for prompt in PROMPTS.values()]
    return texts + [*prompts, YES, NO, "same place?", "where?", gps_answer(-1.2, 103.4), "describe"] * 500


class Talk:
    """Turns places into token ids; encodings are kept, since few words make up all texts."""

    def __init__(self, tokenizer: Any, image: ImageSpec, prompts: dict[str, str] | None = None) -> None:
        self.tokenizer = tokenizer
        self._memory: dict[str, list[int]] = {}
        self._layout = whole_layout(image)
        self._prompts = prompts or PROMPTS
        self.image_id = tokenizer.token_to_id(IMAGE)
        # Any token pads: it stands on the right, where a causal model never looks from the left.
        self.pad = tokenizer.token_to_id(PAD) or 0
        self.end = [tokenizer.token_to_id(END)]
        self.image = self.prompt("embed_image")
        self.where = self.prompt("generate")

    def ids(self, text: str) -> list[int]:
        """Token ids of a literal text, control tokens parsed."""
        if text not in self._memory:
            self._memory[text] = list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        return self._memory[text]

    def prompt(self, role: str, query: str = "text", texts: Sequence[Sequence[int]] = ()) -> list[int]:
        """A role's prompt with image placeholders and texts filled in."""
        frozen = segments(self._prompts[role], self.tokenizer, query)
        return fill_ids(frozen, self.image_id, [self._layout] * 2, texts)

    def captions(self, words: Sequence[Words], rng: Generator, length: int) -> Sequences:
        """Texts as the embedding prompt has them."""
        rows = []
        for one in words:
            text = self.ids(one.captions[rng.integers(len(one.captions))])
            rows.append((self.prompt("embed_text", texts=[text[: length - 1]]), 0))
        return self.padded(rows, length)

    def conversation(self, one: Words, kind: str, rng: Generator, room: int) -> list[tuple[list[int], bool]]:
        """Turns after the picture: a caption, or questions in random order while there is room (in tokens)."""
        if kind == "tile" and rng.random() < 0.4:
            caption = self.ids(one.captions[rng.integers(len(one.captions))])
            return [(self.ids("describe") + self.end, False), ([*caption, *self.end], True)]
        keys = [key for key in one.facts if kind == "tile" or not key.endswith(HIDDEN_IN_PHOTO)]
        turns: list[tuple[list[int], bool]] = []
        for key in rng.permutation(keys).tolist():
            question, answer = self.ids(f"{key}?") + self.end, self.ids(one.facts[key]) + self.end
            room -= len(question) + len(answer)
            if room < 0:
                break
            turns += [(question, False), (answer, True)]
        return turns

    def talks(self, words: Sequence[Words], kind: str, rng: Generator, length: int) -> Sequences:
        """Picture, then conversation; only answers are asked."""
        rows, asked = [], []
        for one in words:
            turns = self.conversation(one, kind, rng, length - len(self.image))
            rows.append(self.image + [token for turn, _ in turns for token in turn])
            asked.append([False] * len(self.image) + [answer for turn, answer in turns for _ in turn])
        ids = np.full((len(rows), length), self.pad, np.int64)
        labels = np.full((len(rows), length), NOT_ASKED, np.int64)
        for i, (row, mask) in enumerate(zip(rows, asked, strict=True)):
            n = min(len(row), length)
            ids[i, :n] = row[:n]
            labels[i, :n] = np.where(mask[:n], row[:n], NOT_ASKED)
        return Sequences(torch.from_numpy(ids), torch.from_numpy(labels), torch.tensor([len(row) for row in rows]))

    def positions(self, words: Sequence[Words], length: int) -> Sequences:
        """Picture, the GPS prompt, the answer; only the answer is asked."""
        rows = []
        for one in words:
            answer = self._tagged(gps_answer(one.lat, one.lon)) + self.end
            rows.append((self.where + answer, len(self.where)))
        return self.padded(rows, length)

    def pairs(
        self, query: str, words: Sequence[Words], same: NDArray[np.bool_], rng: Generator, length: int
    ) -> Sequences:
        """Query (caption or picture), candidate picture, "same place?"; only yes or no is asked."""
        rows = []
        for one, yes in zip(words, same, strict=True):
            texts = [self.ids(one.captions[rng.integers(len(one.captions))])] if query == "text" else []
            answer = self.ids(YES if yes else NO)
            fixed = len(self.prompt("rerank", query, [[]])) + len(answer)
            prompt = self.prompt("rerank", query, [text[: length - fixed] for text in texts])
            rows.append((prompt + answer, len(prompt)))
        return self.padded(rows, length)

    def padded(self, rows: Sequence[tuple[list[int], int]], length: int) -> Sequences:
        """Rows of (ids, first asked position), right-padded to `length`; longer rows are cut."""
        ids = np.full((len(rows), length), self.pad, np.int64)
        labels = np.full((len(rows), length), NOT_ASKED, np.int64)
        lengths = [min(len(row), length) for row, _ in rows]
        for i, ((row, start), n) in enumerate(zip(rows, lengths, strict=True)):
            ids[i, :n] = row[:n]
            labels[i, start:n] = row[start:n]
        return Sequences(torch.from_numpy(ids), torch.from_numpy(labels), torch.tensor(lengths))

    def _tagged(self, text: str) -> list[int]:
        # Positions hardly repeat: keeping them would only fill memory.
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)
