"""Stage by stage against transformers: where does an exported bundle stop computing what the checkpoint computes?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle
from edgegeo.errors import VerificationError
from edgegeo.export.reference import Reference
from edgegeo.export.source import ROLES
from edgegeo.runtime import Embedder, Generator, Model, Reranker
from edgegeo.runtime.tokens import fill

Floats = NDArray[np.float32]

GREY_LEVELS = 1.0
"""Largest difference of a pixel from the Hugging Face processor, in grey levels."""
COSINE = {"fp32": 0.9999, "fp16": 0.9999, "int8": 0.97, "int4": 0.85}
"""Smallest mean cosine with transformers. Quantised limits only catch a broken graph: accuracy is judged on places."""
MARGIN = {"fp32": 0.02, "fp16": 0.05, "int8": 1.0, "int4": 2.5}
"""Largest mean difference of a yes/no margin, in nats."""
TOKENS = {"fp32": 1.0, "fp16": 0.99, "int8": 0.0, "int4": 0.0}
"""Smallest share of equal greedy tokens. A quantised model may write another digit: kilometres judge that."""
ORDER = ("fp32", "fp16", "int8", "int4")


class Sample(Protocol):
    """One place: a description and two pictures as encoded bytes."""

    @property
    def text(self) -> str: ...
    @property
    def photo(self) -> bytes: ...
    @property
    def tile(self) -> bytes: ...


@dataclass(frozen=True)
class Stage:
    """One stage compared with transformers."""

    name: str
    measure: str
    value: float
    limit: float
    precision: str

    @property
    def passed(self) -> bool:
        """Whether the value is on the right side of its limit; NaN never is."""
        return self.value >= self.limit if self.measure in ("cosine", "equal") else self.value <= self.limit


@dataclass(frozen=True)
class Expected:
    """Reference outputs for the samples, computed once and compared with several bundles."""

    pixels: Floats
    tiles: Floats
    features: Floats
    embed_text: Floats
    embed_image: Floats
    margins: NDArray[np.float64]
    answers: tuple[tuple[int, ...], ...]


def expect(reference: Reference, samples: Sequence[Sample]) -> Expected:
    """What transformers computes for the samples; arrays of roles the source lacks are empty."""
    roles = reference.manifest.roles
    pixels = reference.pixels([s.photo for s in samples])
    tiles = reference.pixels([s.tile for s in samples])
    first = next(role for role in ROLES if role in reference.source.roles)
    none = np.empty((0, 0), np.float32)
    return Expected(
        pixels, tiles, reference.features(first, pixels),
        embed_text=np.stack([reference.embedding(s.text) for s in samples]) if roles.embed else none,
        embed_image=np.stack([reference.embedding(pixels=p) for p in pixels]) if roles.embed else none,
        margins=np.array([reference.margin(s.text, t) for s, t in zip(samples, tiles, strict=True)])
        if roles.rerank else np.empty(0),
        answers=tuple(tuple(reference.answer(p)) for p in pixels) if roles.generate else (),
    )  # fmt: skip


def compare(bundle: Bundle, reference: Reference, expected: Expected, samples: Sequence[Sample]) -> tuple[Stage, ...]:
    """Every stage of a bundle against the reference."""
    model = Model(bundle)
    roles, parts = bundle.manifest.roles, bundle.manifest.components
    first = roles.embed or roles.rerank or roles.generate
    assert first is not None
    photos = [s.photo for s in samples]
    stages = [_pixels(model, expected, photos), _features(model, first.vision, expected)]
    if roles.embed is not None:
        stages += _embedding(model, expected, samples, photos)
        stages += _trunk(model, reference, samples)
    if roles.rerank is not None:
        reranker = Reranker(model)
        got = np.array([reranker.margins(s.text, [s.tile])[0] for s in samples])
        worst = _coarsest(parts[roles.rerank.vision].precision, parts[roles.rerank.trunk].precision)
        stages.append(Stage("yes/no margin", "nats", _mean(np.abs(got - expected.margins)), MARGIN[worst], worst))
    if roles.generate is not None:
        stages += _generation(model, reference, expected, photos)
    return tuple(stages)


def require(stages: Sequence[Stage], what: str) -> None:
    """VerificationError naming every stage that failed."""
    failed = [f"{s.name} ({s.measure} {s.value:.4g}, allowed {s.limit:g})" for s in stages if not s.passed]
    if failed:
        raise VerificationError(
            f"the {what} bundle computes something else than the checkpoint: {', '.join(failed)}. Nothing was written; "
            "export at a higher precision, or report this with the checkpoint's config.json"
        )


def _pixels(model: Model, expected: Expected, photos: Sequence[bytes]) -> Stage:
    spec = model.bundle.manifest.image
    level = spec.rescale / max(spec.std)
    off = float(np.abs(model.prepare(photos) - expected.pixels).max()) / level
    return Stage("pixels", "grey levels", off, GREY_LEVELS + 1e-3, "fp32")


def _features(model: Model, component: str, expected: Expected) -> Stage:
    got = model.features(component, expected.pixels)
    precision = model.bundle.manifest.components[component].precision
    return Stage("image tokens", "cosine", _cosine(got, expected.features), COSINE[precision], precision)


def _embedding(model: Model, expected: Expected, samples: Sequence[Sample], photos: Sequence[bytes]) -> list[Stage]:
    embedder, parts = Embedder(model), model.bundle.manifest.components
    trunk = parts[embedder.role.trunk].precision
    both = _coarsest(trunk, parts[embedder.role.vision].precision)
    text, image = embedder.texts([s.text for s in samples]), embedder.images(photos)
    return [
        Stage("text embedding", "cosine", _cosine(text, expected.embed_text), COSINE[trunk], trunk),
        Stage("image embedding", "cosine", _cosine(image, expected.embed_image), COSINE[both], both),
    ]


def _trunk(model: Model, reference: Reference, samples: Sequence[Sample]) -> list[Stage]:
    """The embedding trunk alone: a right-padded batch at all positions, and one text continued in its own cache."""
    role = model.bundle.manifest.roles.embed
    assert role is not None
    precision = model.bundle.manifest.components[role.trunk].precision
    trunk, texts = model.trunk(role.trunk), [s.text for s in samples[:4]]
    prompts = [fill(role.text_prompt, [model.tokenizer.encode(text)]) for text in texts]
    wanted = [reference.hidden("embed", reference.ids(role.text_prompt, text), None) for text in texts]
    embeds, lengths = model.assemble(prompts)
    everywhere = np.broadcast_to(np.arange(embeds.shape[1]), embeds.shape[:2])
    got = trunk.hidden(embeds, lengths, np.ascontiguousarray(everywhere))
    padded = np.concatenate([row[:length] for row, length in zip(got, lengths, strict=True)])
    length, cut = int(lengths[0]), int(lengths[0]) // 2
    cache = trunk.cache(1, length)
    pieces = [cache.extend(embeds[:1, a:b], np.arange(b - a)[None]) for a, b in ((0, cut), (cut, length)) if b > a]
    limit = COSINE[precision]
    return [
        Stage("trunk, padded batch", "cosine", _cosine(padded, np.concatenate(wanted)), limit, precision),
        Stage("trunk, continued", "cosine", _cosine(np.concatenate(pieces, axis=1)[0], wanted[0]), limit, precision),
    ]


def _generation(model: Model, reference: Reference, expected: Expected, photos: Sequence[bytes]) -> list[Stage]:
    generator, parts = Generator(model), model.bundle.manifest.components
    role = generator.role
    states = np.random.default_rng(0).normal(size=(8, 1, model.bundle.manifest.trunk.hidden)).astype(np.float32)
    logits = model.session(role.head).run(["logits"], {"hidden_states": states})[0]
    head = parts[role.head].precision
    worst = _coarsest(head, parts[role.trunk].precision, parts[role.vision].precision)
    answers = generator.answers(photos)
    equal = [_equal(answer.tokens, wanted) for answer, wanted in zip(answers, expected.answers, strict=True)]
    return [
        Stage("logits", "cosine", _cosine(logits, reference.logits(states)), COSINE[head], head),
        Stage("greedy tokens", "equal", _mean(np.array(equal)), TOKENS[worst], worst),
    ]


def _equal(one: Sequence[int], two: Sequence[int]) -> float:
    """Share of positions with the same token; a missing or extra token is a difference."""
    length = max(len(one), len(two))
    return sum(a == b for a, b in zip(one, two, strict=False)) / length if length else 1.0


def _cosine(got: Any, wanted: Any) -> float:
    """Mean cosine over rows (..., D)."""
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return _mean((a * b).sum(axis=-1) / np.maximum(norms, 1e-30))


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values))


def _coarsest(*precisions: str) -> str:
    key: Callable[[str], int] = ORDER.index
    return max(precisions, key=key)
