"""Stage by stage against transformers: where does an exported bundle stop computing what the checkpoint computes?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import Bundle, Component
from edgegeo.calibration.samples import Sample
from edgegeo.errors import CheckpointError, VerificationError
from edgegeo.export.source import ROLES, Source
from edgegeo.models.reference import Reference
from edgegeo.recipe import PRECISIONS
from edgegeo.runtime import Decoding, Embedder, Generator, Model, Picture, Reranker, prepare_picture
from edgegeo.runtime.tokens import fill

Floats = NDArray[np.float32]

GREY_LEVELS = 1.0
"""Largest difference of a pixel from the Hugging Face processor, in grey levels."""
COSINE = {
    "fp32": 0.9999, "fp16": 0.9999, "bf16": 0.999, "int8-blocks": 0.98, "int8": 0.97, "nf4": 0.85, "int4": 0.85,
    "int3": 0.5, "int2": 0.1,
}  # fmt: skip
"""Smallest mean cosine with transformers. Quantised limits only catch a broken graph: accuracy is judged on places."""
MARGIN = {
    "fp32": 0.02, "fp16": 0.05, "bf16": 0.2, "int8-blocks": 1.0, "int8": 1.0, "nf4": 2.5, "int4": 2.5, "int3": 5.0,
    "int2": 10.0,
}  # fmt: skip
"""Largest mean difference of a yes/no margin, in nats."""
TOKENS: dict[str, float | None] = {"fp32": 1.0, "fp16": 0.95} | dict.fromkeys(PRECISIONS[2:])
"""Smallest share of equal greedy tokens. A quantised model may write another digit: kilometres judge that, not this."""


@dataclass(frozen=True)
class Stage:
    """One stage compared with transformers."""

    name: str
    measure: str
    """"cosine" and "equal" (shares of tokens) must reach the limit, "nats" and "grey levels" must not pass it."""
    value: float
    limit: float | None
    """None: told, not judged."""

    @property
    def floor(self) -> bool:
        """Whether the limit is a lower one."""
        return self.measure in ("cosine", "equal")

    @property
    def passed(self) -> bool:
        """Whether the value is on the right side of its limit; NaN never is."""
        if self.limit is None:
            return bool(np.isfinite(self.value))
        return self.value >= self.limit if self.floor else self.value <= self.limit


@dataclass(frozen=True)
class Expected:
    """Reference outputs for the samples, computed once and compared with several bundles."""

    pictures: tuple[Picture, ...]
    """The photos as the checkpoint's own processor prepares them."""
    features: tuple[Floats, ...]
    """Their image tokens (tokens, hidden)."""
    embed_text: Floats
    embed_image: Floats
    margins: NDArray[np.float64]
    answers: tuple[tuple[int, ...], ...]
    steps: int | None = None
    """Tokens after which answers were cut; None: none were."""


def expect(source: Source, samples: Sequence[Sample], steps: int | None = None) -> Expected:
    """What transformers computes for the samples; arrays of roles the source lacks are empty.

    steps: most tokens of an answer, where whole ones would take too long.
    """
    import torch

    checkpoint = source.checkpoint
    photos, tiles = [_open(s.photo) for s in samples], [_open(s.tile) for s in samples]
    processor = image_processor(checkpoint.path)
    first = next(source.roles[role] for role in ROLES if role in source.roles)
    pictures = []
    for photo in photos:
        ours = prepare_picture(photo, checkpoint.image)
        theirs = checkpoint.family.processor_inputs(processor, photo, checkpoint.image)
        pictures.append(replace(ours, inputs=ours.inputs | theirs))
    with torch.no_grad():
        features = [checkpoint.family.image_features(first.model, picture).numpy() for picture in pictures]
    none = np.empty((0, 0), np.float32)
    embed, rerank, generate = (source.roles[r].reference if r in source.roles else None for r in ROLES)
    return Expected(
        tuple(pictures), tuple(features),
        embed_text=embed.embed_texts([s.text for s in samples]) if embed else none,
        embed_image=embed.embed_images(photos) if embed else none,
        margins=np.array([rerank.yes_no_margin(s.text, t) for s, t in zip(samples, tiles, strict=True)])
        if rerank else np.empty(0),
        answers=tuple(tuple(generate.generate(photo, steps)[1]) for photo in photos) if generate else (),
        steps=steps,
    )  # fmt: skip


def compare(bundle: Bundle, source: Source, expected: Expected, samples: Sequence[Sample]) -> tuple[Stage, ...]:
    """Every stage of a bundle against the reference."""
    model = Model(bundle)
    roles, parts = bundle.manifest.roles, bundle.manifest.components
    first = roles.embed or roles.rerank or roles.generate
    assert first is not None
    photos = [s.photo for s in samples]
    features = np.concatenate([one.rows for one in model.features(first.vision, expected.pictures)])
    limit = COSINE[parts[first.vision].precision]
    stages = [
        _pixels(model, expected, photos),
        Stage("image tokens", "cosine", cosine(features, np.concatenate(expected.features)), limit),
    ]
    if roles.embed is not None:
        stages += _embedding(model, expected, samples, photos)
        if bundle.manifest.trunk is not None:
            stages += _trunk(model, source.roles["embed"].reference, samples)
    if roles.rerank is not None:
        reranker = Reranker(model)
        got = np.array([reranker.margins(s.text, [s.tile])[0] for s in samples])
        worst = coarsest(parts[roles.rerank.vision].precision, decoder(parts[roles.rerank.trunk]))
        stages.append(Stage("yes/no margin", "nats", float(np.abs(got - expected.margins).mean()), MARGIN[worst]))
    if roles.generate is not None:
        stages += _generation(model, source.roles["generate"].reference, expected, photos)
    return tuple(stages)


def require(stages: Sequence[Stage], what: str) -> None:
    """VerificationError naming every stage that failed."""
    failed = [f"{s.name} ({s.measure} {s.value:.4g}, allowed {allowed(s)})" for s in stages if not s.passed]
    if failed:
        raise VerificationError(
            f"the {what} bundle computes something else than the checkpoint: {', '.join(failed)}. Nothing was written; "
            "export at a higher precision, or report this with the checkpoint's config.json"
        )


def allowed(stage: Stage) -> str:
    """The limit in words."""
    return "any finite value" if stage.limit is None else f"{stage.limit:g}"


def image_processor(path: Path) -> Any:
    """The checkpoint's own image processor, the Pillow one: the torchvision one resizes differently."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(path, backend="pil", local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} has no usable image processor ({' '.join(str(error).split())[:150]})") from None


def cosine(got: Any, wanted: Any) -> float:
    """Mean cosine over rows (..., D)."""
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(np.mean((a * b).sum(axis=-1) / np.maximum(norms, 1e-30)))


def decoder(part: Component) -> str:
    """The coarser of what a decoder's matrices and its KV cache are stored in."""
    return coarsest(part.precision, part.cache)


def coarsest(*precisions: str) -> str:
    """The coarsest of some precisions: its limits hold for what passes through all of them."""
    return max(precisions, key=PRECISIONS.index)


def _pixels(model: Model, expected: Expected, photos: Sequence[bytes]) -> Stage:
    spec = model.bundle.manifest.image
    level = spec.rescale / max(spec.std)
    off = 0.0
    for ours, theirs in zip(model.prepare(photos), expected.pictures, strict=True):
        for name, wanted in theirs.inputs.items():
            same = ours.inputs[name].shape == wanted.shape
            off = max(off, float(np.abs(ours.inputs[name] - wanted).max()) / level if same else float("inf"))
    return Stage("pixels", "grey levels", off, GREY_LEVELS + 1e-3)


def _embedding(model: Model, expected: Expected, samples: Sequence[Sample], photos: Sequence[bytes]) -> list[Stage]:
    embedder, parts = Embedder(model), model.bundle.manifest.components
    trunk = decoder(parts[embedder.role.trunk])
    both = coarsest(trunk, parts[embedder.role.vision].precision)
    text, image = embedder.texts([s.text for s in samples]), embedder.images(photos)
    return [
        Stage("text embedding", "cosine", cosine(text, expected.embed_text), COSINE[trunk]),
        Stage("image embedding", "cosine", cosine(image, expected.embed_image), COSINE[both]),
    ]


def _trunk(model: Model, reference: Reference, samples: Sequence[Sample]) -> list[Stage]:
    """The embedding trunk alone: a right-padded batch at all positions, and one text continued in its own cache."""
    role = model.bundle.manifest.roles.embed
    assert role is not None
    trunk, texts = model.trunk(role.trunk), [s.text for s in samples[:4]]
    prompts = [fill(role.text_prompt, [model.tokenizer.encode(text)]) for text in texts]
    fed = model.assemble(prompts)
    wanted = [_decoder(reference, np.concatenate([p for p in prompt if not isinstance(p, int)])) for prompt in prompts]
    everywhere = np.ascontiguousarray(np.broadcast_to(np.arange(fed.embeds.shape[1]), fed.embeds.shape[:2]))
    got = trunk.hidden(fed, everywhere)
    padded = np.concatenate([row[:length] for row, length in zip(got, fed.lengths, strict=True)])
    ids, length = prompts[0][0], int(fed.lengths[0])
    assert not isinstance(ids, int)
    cache = trunk.cache(1, length)
    halves = [model.assemble([[part]]) for part in np.array_split(ids, 2) if len(part)]
    pieces = [cache.extend(half, np.arange(half.embeds.shape[1])[None]) for half in halves]
    limit = COSINE[decoder(model.bundle.manifest.components[role.trunk])]
    return [
        Stage("trunk, padded batch", "cosine", cosine(padded, np.concatenate(wanted)), limit),
        Stage("trunk, continued", "cosine", cosine(np.concatenate(pieces, axis=1)[0], wanted[0]), limit),
    ]


def _decoder(reference: Reference, ids: NDArray[np.int64]) -> Floats:
    """Hidden states (S, hidden) of one row of token ids, by transformers."""
    import torch

    with torch.no_grad():
        states = reference.family.hidden(reference.model, torch.from_numpy(ids)[None])
    return np.asarray(states[0].float().numpy())


def _generation(model: Model, reference: Reference, expected: Expected, photos: Sequence[bytes]) -> list[Stage]:
    import torch

    generator, parts = Generator(model), model.bundle.manifest.components
    role = generator.role
    states = np.random.default_rng(0).normal(size=(8, 1, model.bundle.decoder.hidden)).astype(np.float32)
    logits = model.session(role.head).run(["logits"], {"hidden_states": states})[0]
    with torch.no_grad():
        wanted = reference.family.parts(reference.model).head(torch.from_numpy(states)).numpy()
    head = parts[role.head].precision
    worst = coarsest(head, decoder(parts[role.trunk]), parts[role.vision].precision)
    answers = generator.answers(photos, decoding=Decoding(grammar=False))
    pairs = zip(answers, expected.answers, strict=True)
    equal = float(np.mean([_equal(answer.tokens[: expected.steps], known) for answer, known in pairs]))
    return [
        Stage("logits", "cosine", cosine(logits, wanted), COSINE[head]),
        Stage("greedy tokens", "equal", equal, TOKENS[worst]),
    ]


def _equal(one: Sequence[int], two: Sequence[int]) -> float:
    """Share of positions with the same token; a missing or extra token is a difference."""
    length = max(len(one), len(two))
    return sum(a == b for a, b in zip(one, two, strict=False)) / length if length else 1.0


def _open(picture: bytes) -> Image.Image:
    return Image.open(BytesIO(picture)).convert("RGB")
