"""Words to token ids, and frozen prompts to what one request feeds the trunk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Segment
from edgegeo.errors import BundleError, InputError

Ids = NDArray[np.int64]
Piece = Ids | int
"""A run of token ids, or the number of the picture that stands here."""

CHARS_PER_TOKEN = 64
"""A text with more characters than this for every allowed token is refused without tokenising it."""


class Tokenizer:
    """A Hugging Face tokenizer.json, without transformers."""

    def __init__(self, path: str | Path) -> None:
        from tokenizers import Tokenizer as Rust

        try:
            self._rust = Rust.from_file(str(path))
        except Exception as error:  # the Rust side raises bare Exception
            raise BundleError(f"{path} is not a tokenizer ({error}); export the bundle again") from None
        # A user who types "<image>" means these letters, not the control token.
        self._rust.encode_special_tokens = True
        self._rust.no_truncation()
        self._rust.no_padding()

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens; control tokens written out in `text` are plain letters."""
        try:
            return list(self._rust.encode(text, add_special_tokens=False).ids)
        except (TypeError, UnicodeEncodeError):
            raise InputError("the text is not valid Unicode (lone surrogates); send UTF-8") from None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, control tokens included."""
        return str(self._rust.decode(list(ids), skip_special_tokens=False))


def checked_ids(tokenizer: Tokenizer, text: str, max_tokens: int) -> list[int]:
    """Token ids of a text that has words and fits; InputError otherwise, never a silent cut."""
    if not isinstance(text, str):
        raise InputError(f"a text must be a string, not {type(text).__name__}")
    if not text.strip():
        raise InputError("the text is empty; describe the place in a few words")
    if len(text) > CHARS_PER_TOKEN * max_tokens:
        raise InputError(
            f"the text has {len(text):,} characters, far more than this model reads ({max_tokens} tokens); shorten it"
        )
    ids = tokenizer.encode(text)
    if not ids:
        raise InputError("the text has no readable characters; describe the place in a few words")
    if len(ids) > max_tokens:
        raise InputError(f"the text has {len(ids)} tokens, this model reads up to {max_tokens}; shorten it")
    return ids


def fill(prompt: Sequence[Segment], texts: Sequence[Sequence[int]] = ()) -> list[Piece]:
    """The frozen prompt with its text slots filled; neighbouring ids are joined, image slots stay numbers."""
    pieces: list[Piece] = []
    run: list[int] = []
    for segment in prompt:
        if segment.image is not None:
            if run:
                pieces.append(np.array(run, np.int64))
                run = []
            pieces.append(segment.image)
        elif segment.text is not None:
            if segment.text >= len(texts):
                raise InputError(f"the prompt asks for text {segment.text}, but only {len(texts)} were given")
            run.extend(texts[segment.text])
        else:
            run.extend(segment.ids or ())
    if run:
        pieces.append(np.array(run, np.int64))
    return pieces
