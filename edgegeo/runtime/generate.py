"""GPS generation: picture in, answer text out, by greedy decoding."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, GenerateRole
from edgegeo.errors import BundleError
from edgegeo.geo import Position
from edgegeo.runtime.answer import parse_answer
from edgegeo.runtime.image import Source
from edgegeo.runtime.model import Model
from edgegeo.runtime.tokens import fill
from edgegeo.runtime.trunk import Floats, Head


@dataclass(frozen=True)
class Generated:
    """One generated answer."""

    text: str
    """What the model wrote, without the stop token."""
    position: Position | None
    """The position in it; None if there is none."""
    logprob: float
    """Sum of the log-probabilities of the tokens, the stop token included."""
    tokens: tuple[int, ...]
    """Token ids of the text."""


class Generator:
    """Greedy single pass, as GeoLocSFT evaluates (arXiv 2506.01277)."""

    def __init__(self, model: Model) -> None:
        role = model.bundle.manifest.roles.generate
        if role is None:
            raise BundleError(f"{model.bundle.path}: the bundle offers no GPS generation; export it with that role")
        self.model = model
        self.role: GenerateRole = role

    @classmethod
    def open(
        cls, bundle: str | Path | Bundle | Model, threads: int | None = None, provider: str = "cpu"
    ) -> "Generator":
        """From a bundle's folder, an opened bundle, or a Model whose sessions are shared."""
        return cls(Model.open(bundle, threads, provider))

    def answer(self, image: Source) -> Generated:
        """The answer for one picture."""
        return self.answers([image])[0]

    def answers(self, images: Sequence[Source], batch: int = 16) -> list[Generated]:
        """Answers for many pictures; the rows of a batch are decoded together and stop one by one."""
        out: list[Generated] = []
        for start in range(0, len(images), max(1, batch)):
            pixels = self.model.prepare(images[start : start + max(1, batch)])
            out += self.features(self.model.features(self.role.vision, pixels))
        return out

    def features(self, features: Floats) -> list[Generated]:
        """Answers for image tokens (B, tokens, hidden) that were computed already."""
        rows, role, spec = len(features), self.role, self.model.bundle.manifest.trunk
        embeds, lengths = self.model.assemble([fill(role.prompt)] * rows, (features,))
        length = int(lengths[0])
        trunk = self.model.trunk(role.trunk)
        cache = trunk.cache(rows, min(length + role.max_new_tokens, spec.max_positions))
        head = Head(self.model.session(role.head), rows, spec.hidden, spec.vocab)
        hidden = cache.extend(embeds, np.full((rows, 1), length - 1, np.int64))
        stops = frozenset(role.stop_ids)
        written: list[list[int]] = [[] for _ in range(rows)]
        logprobs = np.zeros(rows)
        running = np.ones(rows, bool)
        for _ in range(min(role.max_new_tokens, spec.max_positions - length)):
            logits = head.run(hidden)
            chosen = logits.argmax(axis=1)
            logprobs[running] += _chosen_logprob(logits, chosen)[running]
            running &= [token not in stops for token in chosen.tolist()]
            for row in np.flatnonzero(running):
                written[row].append(int(chosen[row]))
            if not running.any():
                break
            cache.step_embeds[:, 0] = self.model.rows(chosen)
            hidden = cache.step()
        return [self._result(ids, float(logprob)) for ids, logprob in zip(written, logprobs, strict=True)]

    def _result(self, ids: Sequence[int], logprob: float) -> Generated:
        text = self.model.tokenizer.decode(ids)
        return Generated(text, parse_answer(text), logprob, tuple(ids))


def _chosen_logprob(logits: Floats, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    top = logits[np.arange(len(chosen)), chosen]
    # The chosen logit is the largest, so the exponents are at most 0.
    return np.asarray(-np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)))
