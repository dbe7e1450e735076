"""Prompt templates frozen to token ids: one function for training, export and the torch reference.

A template is plain text with slots: `{image}` a picture, `{text}` a text, `{image|text}` a query that is either (the
re-rank prompt, which so becomes two prompts). Literal pieces are tokenised one by one, with control tokens parsed
and none added.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgegeo.bundle import Segment
from edgegeo.errors import CheckpointError

_SLOT = re.compile(r"(\{image\|text\}|\{image\}|\{text\})")


@dataclass(frozen=True)
class ImageWrap:
    """Token ids around the image tokens of one unsplit picture, as the Hugging Face processor writes them."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def image_wrap(tokenizer: Any) -> ImageWrap:
    """The SmolVLM processor's wrapping, `<fake_token_around_image><global-img>` ... `<fake_token_around_image>`.

    tokenizer: tokenizers.Tokenizer. CheckpointError if it lacks these control tokens.
    """
    ids = {name: tokenizer.token_to_id(name) for name in ("<fake_token_around_image>", "<global-img>")}
    missing = [name for name, number in ids.items() if number is None]
    if missing:
        raise CheckpointError(f"the tokenizer lacks {' and '.join(missing)}, which SmolVLM writes around a picture")
    fake, whole = ids["<fake_token_around_image>"], ids["<global-img>"]
    return ImageWrap((fake, whole), (fake,))


def segments(template: str, tokenizer: Any, wrap: ImageWrap, query: str = "text") -> tuple[Segment, ...]:
    """Freeze a template; `query` ("image" or "text") says what an `{image|text}` slot becomes. Slots count from 0."""
    out: list[Segment] = []
    images = texts = 0
    for piece in _SLOT.split(template):
        if piece == "{image|text}":
            piece = f"{{{query}}}"
        if piece == "{image}":
            _extend(out, wrap.before)
            out.append(Segment(image=images))
            _extend(out, wrap.after)
            images += 1
        elif piece == "{text}":
            out.append(Segment(text=texts))
            texts += 1
        elif piece:
            _extend(out, tuple(tokenizer.encode(piece, add_special_tokens=False).ids))
    return tuple(out)


def fill_ids(
    prompt: Sequence[Segment], image_token: int, image_tokens: int, texts: Sequence[Sequence[int]] = ()
) -> list[int]:
    """Token ids of a filled prompt, `image_tokens` placeholders `image_token` for every picture."""
    ids: list[int] = []
    for segment in prompt:
        if segment.image is not None:
            ids.extend([image_token] * image_tokens)
        elif segment.text is not None:
            ids.extend(texts[segment.text])
        else:
            ids.extend(segment.ids or ())
    return ids


def word_ids(words: Sequence[str], tokenizer: Any) -> tuple[int, ...]:
    """Token ids of the words that are one token each, without repeats; CheckpointError if there is none."""
    found = [tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    ids = tuple(dict.fromkeys(one[0] for one in found if len(one) == 1))
    if not ids:
        raise CheckpointError(f"none of the answer words {', '.join(map(repr, words))} is a single token; name others")
    return ids


def _extend(out: list[Segment], ids: tuple[int, ...]) -> None:
    if out and out[-1].ids is not None:
        out[-1] = Segment(ids=out[-1].ids + ids)
    else:
        out.append(Segment(ids=ids))
