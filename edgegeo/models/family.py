"""What every model family answers, so that training, export and verification never ask which one it is.

A family is one file under edgegeo/models/families/ that ends in `FAMILY = ...`; nothing else has to know of it, as
long as its vision tower (edgegeo/export/vision/), its preprocessing (edgegeo/runtime/pictures/) and its text decoder
(edgegeo/export/trunk.py) are of kinds that exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import Picture


@dataclass(frozen=True)
class Parts:
    """The torch modules of a model, by what they do; they share their weights with it."""

    vision: Any
    """The vision tower, without connector."""
    connector: Any
    """From the tower's patches to image tokens of the decoder's width; None where the tower does it itself."""
    text: Any
    """The decoder, without head."""
    head: Any
    """Hidden state to logits."""


@dataclass(frozen=True)
class TextSpec:
    """How a dual encoder reads a text."""

    dim: int
    """Length of an embedding."""
    before: tuple[int, ...]
    after: tuple[int, ...]
    """Token ids that the tokenizer writes around a text."""
    pad_id: int
    pad_to: int
    """Positions that every text is padded to; 0: padding changes nothing, so only to the longest of a batch."""
    longest: int
    """Most tokens of a text, without `before` and `after`."""
    lower_case: bool = False
    """Whether texts are lower-cased before the tokenizer, which does not do it itself."""


@dataclass(frozen=True)
class Seen(Picture):
    """A picture that the vision tower has seen already, for answers that are written token by token."""

    rows: Tensor = field(default_factory=lambda: torch.empty(0))
    """Its image tokens (tokens, hidden)."""


class Family:
    """A model family. The defaults fit models whose decoder reads plain causal sequences."""

    name: str
    model_types: tuple[str, ...]
    """`model_type` of the config.json files it opens."""
    vision: str
    """Architecture of the vision graph: a file of edgegeo/export/vision/."""
    text: str = ""
    """Dual encoders: architecture of the text graph, a name in edgegeo/export/text_encoder.py. "" means a decoder."""
    around_image: tuple[str, str] = ("", "")
    """Plain text that the family's processor writes before and after a picture, outside its marks."""
    answer_end: str = ""
    """The control token behind an answer in the family's chat template."""
    refused: tuple[tuple[str, str], ...] = ()
    """`model_type` of relatives that it does not open, each with the reason and the remedy."""

    def parts(self, model: Any) -> Parts:
        """The modules of a transformers model of this family."""
        raise NotImplementedError

    @property
    def roles(self) -> tuple[str, ...]:
        """What a model of this family can be exported for."""
        return ("embed",) if self.text else ("embed", "rerank", "generate")

    def text_spec(self, config: Any, tokenizer: Any, pad_token: str | None) -> TextSpec:
        """Dual encoders: how a text is read. pad_token: from tokenizer_config.json, None where it names none."""
        raise NotImplementedError

    def text_features(self, model: Any, ids: Tensor) -> Tensor:
        """Dual encoders: text embeddings (B, dim) of token ids (B, S), by transformers' own code."""
        raise NotImplementedError

    def image_token_id(self, config: Any) -> int:
        """The placeholder of one image token in token ids."""
        return int(config.image_token_id)

    def image_spec(
        self, config: Any, preprocessor: dict[str, Any], tokenizer: Any, budget: TokenBudget | None = None
    ) -> ImageSpec:
        """Image preprocessing as data. preprocessor: the checkpoint's own settings; tokenizer: tokenizers.Tokenizer.

        CheckpointError for settings that the family's rule does not reproduce, or a budget it can't keep.
        """
        raise NotImplementedError

    def default_settings(self, tokenizer: Any) -> dict[str, Any]:
        """How a checkpoint without edgegeo_model.json is asked, in the words of the family's chat template."""
        raise NotImplementedError

    @property
    def pair_question(self) -> str:
        """What a model is asked of two candidates; pictures stand at the beginning of a line, as Gemma wants them."""
        return (
            "{image|text}\nA:\n{image}\nB:\n{image}\nWhich of A and B shows the same place as the first? Answer A or B."
        )

    def settings_for(self, prompts: dict[str, str]) -> dict[str, Any]:
        """What every decoder's default settings share beside the prompts of its family."""
        words = {word: [f"{blank}{case}" for blank in ("", " ") for case in (word, word.title(), word.upper())]
                 for word in ("yes", "no")}  # fmt: skip
        return {
            "prompts": prompts, **words, "adapters": {"embed": None, "rerank": None, "generate": None},
            "max_new_tokens": 64, "planet_seed": None,
        }  # fmt: skip

    def check_prompts(self, prompts: Mapping[str, str], spec: ImageSpec) -> None:
        """CheckpointError for templates whose token ids could not equal the Hugging Face processor's."""

    def embedding_scale(self, model: Any) -> float:
        """What the model multiplies token embeddings by; the bundle's table holds the products."""
        return 1.0

    def image_features(self, model: Any, picture: Picture) -> Tensor:
        """Image tokens (tokens, hidden) of one picture, by transformers' own code."""
        raise NotImplementedError

    def features(self, model: Any, pictures: Sequence[Picture]) -> list[Tensor]:
        """Image tokens (tokens, hidden) of each picture; all tiles go through the tower together."""
        tiles = [len(picture.inputs["pixel_values"]) for picture in pictures]
        joined = np.concatenate([picture.inputs["pixel_values"] for picture in pictures])
        rows = self.image_features(model, Picture({"pixel_values": joined}, ()))
        return list(rows.split([len(rows) // sum(tiles) * count for count in tiles]))

    def hidden(
        self, model: Any, ids: Tensor, pictures: Sequence[Picture] = (), tail: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Last hidden states (B, S + Q, hidden) of right-padded prompts, ids (B, S), by transformers' own forward.

        Image placeholders in `ids` are filled with the pictures' image tokens in reading order; tail (Q, hidden):
        latent queries behind each prompt; lengths (B): tokens of each prompt, None where none is padded. States of
        padding mean nothing: it stands where no token looks.
        """
        states: Tensor = (
            self.parts(model)
            .text(inputs_embeds=self.embeddings(model, ids, pictures, tail, lengths), use_cache=False)
            .last_hidden_state
        )
        return states

    def embeddings(
        self, model: Any, ids: Tensor, pictures: Sequence[Picture], tail: Tensor | None, lengths: Tensor | None = None
    ) -> Tensor:
        """Decoder inputs (B, S + Q, hidden)."""
        inputs: Tensor = model.get_input_embeddings()(ids)
        if pictures:
            seen = [p for p in pictures if isinstance(p, Seen)]
            rows = torch.cat([p.rows for p in seen] if len(seen) == len(pictures) else self.features(model, pictures))
            inputs = inputs.clone()
            # A placeholder that the model itself wrote behind the prompt stays a token, as in generation with a cache.
            places = torch.nonzero(ids == self.image_token_id(model.config))[: len(rows)]
            inputs[places[:, 0], places[:, 1]] = rows.to(inputs.dtype)
        return inputs if tail is None else behind(inputs, tail, lengths)

    def processor_inputs(self, processor: Any, image: Any, spec: ImageSpec) -> dict[str, Any]:
        """What the Hugging Face image processor makes of a PIL picture, under the names of `Picture.inputs`.

        Inputs that only edgegeo's graphs have are left out; `spec` says what was asked for (tiles, size).
        """
        made = processor(image, return_tensors="np")["pixel_values"]
        return {"pixel_values": made.reshape(-1, *made.shape[-3:])}


def behind(inputs: Tensor, tail: Tensor, lengths: Tensor | None) -> Tensor:
    """Decoder inputs (B, S + Q, hidden) with the tail (Q, hidden) after each row's last real position."""
    tail = tail.to(inputs.dtype).expand(len(inputs), -1, -1)
    if lengths is None:
        return torch.cat([inputs, tail], dim=1)
    longer = torch.nn.functional.pad(inputs, (0, 0, 0, tail.shape[1]))
    places = lengths[:, None] + torch.arange(tail.shape[1], device=lengths.device)
    return longer.scatter(1, places[..., None].expand(-1, -1, inputs.shape[-1]), tail)


def mark_ids(tokenizer: Any, family: str, **marks: str) -> dict[str, tuple[int, ...]]:
    """Token ids of control tokens by the names of `ImageSpec.marks`; CheckpointError if the tokenizer lacks one.

    Several tokens of a mark are separated by blanks.
    """
    lacking = [token for text in marks.values() for token in text.split() if tokenizer.token_to_id(token) is None]
    if lacking:
        raise CheckpointError(f"the tokenizer lacks {' and '.join(lacking)}, which {family} writes around a picture")
    return {name: tuple(tokenizer.token_to_id(token) for token in text.split()) for name, text in marks.items()}


@cache
def families() -> tuple[Family, ...]:
    """All families, by the files in edgegeo/models/families/."""
    import edgegeo.models.families as home

    names = sorted(module.name for module in iter_modules(home.__path__))
    return tuple(import_module(f"{home.__name__}.{name}").FAMILY for name in names)


def find_family(model_type: str | None) -> Family:
    """The family of a config.json's `model_type`; CheckpointError names the known ones."""
    for family in families():
        if model_type in family.model_types:
            return family
    for kind, reason in (pair for family in families() for pair in family.refused):
        if kind == model_type:
            raise CheckpointError(f"this is a '{model_type}' model: {reason}")
    known = ", ".join(kind for family in families() for kind in family.model_types)
    raise CheckpointError(f"this is a '{model_type}' model; this edgegeo knows {known}")
