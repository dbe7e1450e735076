"""What a model is asked about the samples: every prompt of every role, as the runtime puts them together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgegeo.bundle import EmbedRole, GenerateRole, RerankRole
from edgegeo.calibration.samples import Sample
from edgegeo.runtime import ImageTokens, Model
from edgegeo.runtime.dual_encoder import text_feeds
from edgegeo.runtime.model import load_array
from edgegeo.runtime.tokens import Piece, fill
from edgegeo.runtime.trunk import Floats, Ints, TrunkInput

Shown = tuple[int, str]
"""Number of a sample, and "photo" or "tile"."""
Answers = Callable[[Sample], str]
"""How a model writes the position of a sample; "" for one without."""


@dataclass(frozen=True)
class Asked:
    """One prompt of one row."""

    fed: TrunkInput
    answer: Ints | None = None
    """Positions whose hidden states the head turns into the tokens of an answer; None where no head runs."""


@dataclass(frozen=True)
class Material:
    """Samples, and the image tokens that each vision component made of their pictures."""

    model: Model
    samples: Sequence[Sample]
    features: Mapping[str, Mapping[Shown, ImageTokens]]
    answers: Answers

    def pictures(self, component: str) -> list[tuple[Shown, ImageTokens]]:
        """All pictures of a component, in the order of the samples."""
        return sorted(self.features[component].items(), key=lambda item: item[0])

    def texts(self) -> list[tuple[int, list[int]]]:
        """Sample number and token ids of every text that says anything."""
        encode = self.model.tokenizer.encode
        return [(index, encode(one.text)) for index, one in enumerate(self.samples) if one.text]


def prompts_of(material: Material, trunk: str) -> list[Asked]:
    """Every prompt that a decoder reads, over all roles it plays."""
    roles = material.model.bundle.manifest.roles
    found: list[Asked] = []
    if roles.embed is not None and roles.embed.trunk == trunk:
        found += _embed(material, roles.embed)
    if roles.rerank is not None and roles.rerank.trunk == trunk:
        found += _rerank(material, roles.rerank)
    if roles.generate is not None and roles.generate.trunk == trunk:
        found += _generate(material, roles.generate)
    room = material.model.bundle.decoder.max_positions
    return [one for one in found if one.fed.embeds.shape[1] <= room]


def texts_of(material: Material) -> list[dict[str, Ints]]:
    """What the text tower of a dual encoder is fed: for each text its inputs by name, (1, T) each."""
    role = material.model.bundle.manifest.roles.embed
    assert role is not None
    lower = role.lower_case
    kept = [one for one in material.samples if one.text]
    rows = [material.model.tokenizer.encode(one.text.lower() if lower else one.text) for one in kept]
    return [text_feeds(role, [fill(role.text_prompt, [ids])]) for ids in rows if len(ids) <= role.max_text_tokens]


def _embed(material: Material, role: EmbedRole) -> list[Asked]:
    model = material.model
    queries: Floats | None = None
    if role.queries is not None:
        queries = np.asarray(load_array(model.bundle, role.queries), np.float32)
    texts = [ids for _, ids in material.texts() if len(ids) <= role.max_text_tokens]
    found = [Asked(model.assemble([fill(role.text_prompt, [ids])], (), queries)) for ids in texts]
    shown = fill(role.image_prompt)
    return found + [
        Asked(model.assemble([shown], [[tokens]], queries)) for _, tokens in material.pictures(role.vision)
    ]  # fmt: skip


def _rerank(material: Material, role: RerankRole) -> list[Asked]:
    """Every text and every photo beside a tile: in turn that of its own place and that of the next."""
    model, seen = material.model, material.features[role.vision]
    tiles = [tokens for (_, view), tokens in sorted(seen.items()) if view == "tile"]
    found: list[Asked] = []
    for row, (_, ids) in enumerate(material.texts() if tiles else ()):
        found.append(Asked(model.assemble([fill(role.text_prompt, [ids])], [[tiles[(row + row % 2) % len(tiles)]]])))
    photos = [tokens for (_, view), tokens in sorted(seen.items()) if view == "photo"]
    for row, photo in enumerate(photos if tiles else ()):
        candidate = tiles[(row + row % 2) % len(tiles)]
        found.append(Asked(model.assemble([fill(role.image_prompt)], [[photo], [candidate]])))
    return found


def _generate(material: Material, role: GenerateRole) -> list[Asked]:
    """Every photo with the answer that is right."""
    model, found = material.model, []
    for (index, view), tokens in material.pictures(role.vision):
        if view != "photo":
            continue
        answer = np.array(model.tokenizer.encode(material.answers(material.samples[index])), np.int64)
        pieces: list[Piece] = [*fill(role.prompt), *([answer] if len(answer) else [])]
        fed = model.assemble([pieces], [[tokens]])
        length = int(fed.lengths[0])
        found.append(Asked(fed, np.arange(length - len(answer) - 1, length)))
    return found
