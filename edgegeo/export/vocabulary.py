"""The bytes that each token of a tokenizer stands for: byte-level BPE and SentencePiece with byte fallback."""

import json
import re
from typing import Any

from edgegeo.errors import CheckpointError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(tokenizer: Any, size: int) -> list[bytes]:
    """Bytes of the token ids below `size`; b"" for control tokens and for ids that stand for no text.

    What is worked out from the tokenizer's description is compared with what it decodes behind another token: a token
    that says something else is left out, so that no grammar can admit it. CheckpointError for an unknown decoder.
    """
    description = json.loads(tokenizer.to_str())
    kinds = _decoders(description.get("decoder") or {})
    if "ByteLevel" in kinds:
        letters = {letter: value for value, letter in enumerate(_byte_letters())}
    elif "ByteFallback" in kinds or "Metaspace" in kinds:
        letters = {}
    else:
        raise CheckpointError(
            f"the tokenizer's decoder ({', '.join(kinds) or 'none'}) is neither byte-level nor SentencePiece; "
            "its answers can't be held to a grammar in this version"
        )
    control = {token["id"] for token in description["added_tokens"] if token["special"]}
    out = [b""] * size
    for text, index in tokenizer.get_vocab(with_added_tokens=True).items():
        if index < size and index not in control:
            out[index] = _bytes(text, letters)
    return _checked(tokenizer, out)


def _decoders(decoder: dict[str, Any]) -> list[str]:
    if decoder.get("type") == "Sequence":
        return [kind for inner in decoder["decoders"] for kind in _decoders(inner)]
    return [decoder["type"]] if decoder else []


def _bytes(text: str, letters: dict[str, int]) -> bytes:
    if letters:
        # Added tokens hold letters outside the byte alphabet and stand for themselves.
        known = all(letter in letters for letter in text)
        return bytes(letters[letter] for letter in text) if known else text.encode()
    fallback = _BYTE.fullmatch(text)
    return bytes([int(fallback.group(1), 16)]) if fallback else text.replace("▁", " ").encode()


def _byte_letters() -> list[str]:
    """GPT-2's letter of each byte: printable Latin-1 stands for itself, the others follow from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value) if value in plain else chr(next(others)) for value in range(256)]


def _checked(tokenizer: Any, tokens: list[bytes]) -> list[bytes]:
    # Behind a letter, since some decoders strip a blank from the very beginning.
    anchor = next((index for index, value in enumerate(tokens) if value in (b"a", b"x", b"e", b"1")), None)
    if anchor is None:
        raise CheckpointError("the tokenizer has no token for a single letter; its answers can't be held to a grammar")
    told = tokenizer.decode_batch([[anchor, i] for i in range(len(tokens))], skip_special_tokens=False)
    before = tokens[anchor].decode()
    return [value if _says(told[i], before, value) else b"" for i, value in enumerate(tokens)]


def _says(told: str, before: str, value: bytes) -> bool:
    try:
        return told == before + value.decode()
    except UnicodeDecodeError:  # part of a letter: nothing to compare
        return True
