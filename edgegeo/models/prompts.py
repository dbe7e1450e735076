"""Prompt templates frozen to token ids: one function for training, export and the torch reference.

A template is plain text with slots: `{image}` a picture, `{text}` a text, `{image|text}` a query that is either (the
re-rank prompt, which so becomes two prompts). Literal text between slots is tokenised at once, with control tokens
parsed and none added.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgegeo.bundle import Segment
from edgegeo.errors import CheckpointError
from edgegeo.runtime.pictures import Instead, Layout

_SLOT = re.compile(r"(\{image\|text\}|\{image\}|\{text\})")


def segments(
    template: str, tokenizer: Any, query: str = "text", around: tuple[str, str] = ("", "")
) -> tuple[Segment, ...]:
    """Freeze a template; `query` ("image" or "text") says what an `{image|text}` slot becomes. Slots count from 0.

    around: plain text before and after every picture (`Family.around_image`). It is tokenised together with the words
    beside it, as the Hugging Face processor does: a newline of each can be one token.
    """
    out: list[Segment] = []
    images = texts = 0
    words = ""

    def flush() -> None:
        nonlocal words
        if words:
            out.append(Segment(ids=tuple(tokenizer.encode(words, add_special_tokens=False).ids)))
        words = ""

    for piece in _SLOT.split(template):
        if piece == "{image|text}":
            piece = f"{{{query}}}"
        if piece == "{image}":
            words += around[0]
            flush()
            out.append(Segment(image=images))
            words, images = around[1], images + 1
        elif piece == "{text}":
            flush()
            out.append(Segment(text=texts))
            texts += 1
        else:
            words += piece
    flush()
    return tuple(out)


def turned(
    template: str, tokenizer: Any, query: str = "text", around: tuple[str, str] = ("", "")
) -> tuple[Segment, ...]:
    """Freeze a re-rank template with query and candidate in each other's place; slots keep their numbers."""
    where = {"{image|text}": "{image}", "{image}": "{image|text}"}
    swapped = "".join(where.get(piece, piece) for piece in _SLOT.split(template))
    found = segments(swapped, tokenizer, query, around)
    if query == "text":
        return found
    return tuple(Segment(image=1 - one.image) if one.image is not None else one for one in found)


def fill_ids(
    prompt: Sequence[Segment], image_token: int, layouts: Sequence[Layout] = (), texts: Sequence[Sequence[int]] = ()
) -> list[int]:
    """Token ids of a filled prompt; layouts: one a picture, with a placeholder `image_token` for each image token."""
    ids: list[int] = []
    for segment in prompt:
        if segment.image is not None:
            for part in layouts[segment.image]:
                if isinstance(part, Instead):
                    ids = part.of(np.array(ids, np.int64)).tolist()
                else:
                    ids.extend([image_token] * part if isinstance(part, int) else part.tolist())
        elif segment.text is not None:
            ids.extend(texts[segment.text])
        else:
            ids.extend(segment.ids or ())
    return ids


def literal_ids(text: str, tokenizer: Any) -> list[int]:
    """Token ids of words from outside; control tokens written out in them are plain letters, as in the runtime."""
    tokenizer.encode_special_tokens = True
    try:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)
    finally:
        tokenizer.encode_special_tokens = False


def word_ids(words: Sequence[str], tokenizer: Any) -> tuple[int, ...]:
    """Token ids of the words that are one token each, without repeats; CheckpointError if there is none."""
    found = [tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    ids = tuple(dict.fromkeys(one[0] for one in found if len(one) == 1))
    if not ids:
        raise CheckpointError(f"none of the answer words {', '.join(map(repr, words))} is a single token; name others")
    return ids
