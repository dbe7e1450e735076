"""Answers that a decoder is told to write, so that ways of decoding can be timed whatever the weights say."""

import json
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer as RustTokenizer

from edgegeo.export.automaton import CAPTION
from edgegeo.export.vocabulary import token_bytes
from edgegeo.runtime import Decoding, Generator, ImageTokens
from edgegeo.runtime.decoding import LONGEST_DRAFT, Decoder, Written
from edgegeo.runtime.grammar import Grammar
from edgegeo.runtime.tokens import Piece, fill

ANSWERS = {"pocket": "<answer>+48.8, -122.3</answer>", "smolvlm-256m": " <answer>-48.858, -122.294</answer>"}
"""What every way writes: as long as the grammar lets it become."""
BROKEN_DRAFTS = 0.3
"""Share of an answer's choices at which a draft of the packaged model breaks off (300 validation places)."""
PHRASE = "open grassland with low hills"
"""Every text of the geo-caption."""


class Given(Decoder):
    """A decoder that scores everything and then takes the tokens it was given."""

    tokens: tuple[int, ...] = ()
    places: Mapping[int, int] = MappingProxyType({})
    """How many tokens lead to each state of the grammar."""
    wrong: Container[int] | None = ()
    """Places at which drafts are wrong; None: there are no drafts."""

    def _pick(self, scores: Any, answers: Sequence[Written]) -> Any:
        super()._pick(scores, answers)
        token = self.tokens[len(answers[0].tokens)]
        index = token if self.grammar is None else int(np.searchsorted(self._allowed(answers[0]).tokens, token))
        return np.full(len(answers), index)

    def _guess(self, hidden: Any, state: int) -> list[int]:
        length = 0 if self.wrong is None else len(super()._guess(hidden, state))
        if self.wrong is None or length == 0:
            return []
        begin, end = self.places[state], max(self.places.values())
        made = enumerate(self.tokens[begin : min(end, begin + LONGEST_DRAFT)], begin)
        return [token ^ (place in self.wrong) for place, token in made]


class Way(NamedTuple):
    """A given answer on its way through the grammar."""

    mode: str
    tokens: tuple[int, ...]
    places: dict[int, int]
    """State -> how many tokens lead there, for every state in which the answer chooses."""
    chosen: int
    """Tokens that are not forced."""

    def broken(self, share: float) -> frozenset[int]:
        """Places of the choices at which drafts break off, more of them early, as drafts improve on the way."""
        choices = list(self.places.values())[:-1]
        return frozenset(
            choices[round(at) - 1] for at in np.geomspace(1, len(choices), round(share * len(self.places)))
        )


def follow(grammar: Grammar, words: Sequence[bytes], mode: str, text: str) -> Way:
    """The tokens by which the grammar writes a text: what is forced, else the longest token that fits."""
    ids, rest = {word: token for token, word in enumerate(words) if word}, text.encode()
    tokens, state = grammar.forced(grammar.start(mode))
    rest, places, chosen = rest[sum(len(words[token]) for token in tokens) :], {}, 0
    while not grammar.complete(state):
        places[state], chosen = len(tokens), chosen + 1
        choices = grammar.choices(state)
        allowed = dict(zip(choices.tokens.tolist(), choices.nexts.tolist(), strict=True))
        token = next(ids[rest[:n]] for n in range(len(rest), 0, -1) if ids.get(rest[:n]) in allowed)
        run, state = grammar.forced(allowed[token])
        tokens += [token, *run]
        rest = rest[sum(len(words[one]) for one in (token, *run)) :]
    assert not rest, rest
    return Way(mode, tuple(tokens), places, chosen)


def retrace(grammar: Grammar, tokens: Sequence[int]) -> Way:
    """The way of a position whose tokens are known."""
    taken, state = grammar.forced(grammar.start("answer"))
    places, chosen = {}, 0
    while not grammar.complete(state):
        places[state], chosen = len(taken), chosen + 1
        choices = grammar.choices(state)
        allowed = dict(zip(choices.tokens.tolist(), choices.nexts.tolist(), strict=True))
        run, state = grammar.forced(allowed[tokens[len(taken)]])
        taken = [*taken, tokens[len(taken)], *run]
    assert taken == [*tokens], (taken, tokens)
    return Way("answer", tuple(taken), places, chosen)


def prefill(
    generator: Generator, picture: ImageTokens | None, decoder: Decoder, prompt: Sequence[Piece] | None = None
) -> tuple[Any, Any, list[int]]:
    """A cache behind prompt and draft, the hidden states behind the prompt and every drafted token, the draft.

    prompt: pieces to read instead of the role's own prompt with the picture.
    """
    draft = decoder.draft(decoder.budget)
    behind = [*decoder.opening(), *draft]
    pieces = [*(prompt or fill(generator.role.prompt)), *([np.array(behind, np.int64)] if behind else [])]
    fed = generator.model.assemble([pieces], [] if picture is None else [[picture]])
    length = int(fed.lengths[0])
    cache = generator.model.trunk(generator.role.trunk).cache(1, length + decoder.budget)
    return cache, cache.extend(fed, np.arange(length - 1 - len(draft), length)[None]), draft


class Bench:
    """One model that writes one given answer behind one picture, or behind a prompt of token ids."""

    def __init__(
        self, generator: Generator, picture: ImageTokens | None, answer: str | Sequence[int],
        prompt: Sequence[Piece] | None = None,
    ) -> None:  # fmt: skip
        self.generator, self.model, self.picture, self._prompt = generator, generator.model, picture, prompt
        assert generator.grammar is not None
        self.grammar = generator.grammar
        if not isinstance(answer, str):
            self.path = retrace(self.grammar, answer)
            return
        coded = RustTokenizer.from_file(str(self.model.bundle.file(self.model.bundle.manifest.tokenizer)))
        self._words = token_bytes(coded, self.model.bundle.decoder.vocab)
        self._lead = answer[: answer.index("<")]
        self.path = follow(self.grammar, self._words, "answer", answer)

    def caption(self) -> Way:
        """The geo-caption of a place."""
        return follow(self.grammar, self._words, "caption", self._lead + json.dumps(_filled(CAPTION)))

    def decoder(
        self, grammar: bool, path: Way | None = None, wrong: Container[int] | None = None, **settings: Any
    ) -> Given:
        role, path = self.generator.role, path or self.path
        decoding = Decoding(path.mode, **settings)
        rules = self.grammar if grammar else None
        made = Given(self.model, role.head, role.stop_ids, rules, decoding, len(path.tokens) + 40)
        made.tokens, made.places, made.wrong = (*path.tokens, role.stop_ids[0]), path.places, wrong
        return made

    def prefill(self, decoder: Decoder) -> tuple[Any, Any, list[int]]:
        """`prefill` of the picture or prompt."""
        return prefill(self.generator, self.picture, decoder, self._prompt)

    def answer(self, decoder: Given, count: int = 1) -> Written:
        return self.decode(decoder, *self.prefill(decoder), count)

    def decode(self, decoder: Given, cache: Any, hidden: Any, draft: Sequence[int], count: int = 1) -> Written:
        rows = [decoder.begin(number) for number in range(count)]
        rows[0].draft = list(draft)
        mark = cache.mark().before(len(draft))
        if count > 1:
            decoder.write(cache.expand(count), np.repeat(hidden, count, axis=0), rows)
        else:
            decoder.write(cache, hidden, rows)
        cache.rewind(mark)
        assert all((*row.tokens, decoder.tokens[-1]) == decoder.tokens for row in rows), [row.tokens for row in rows]
        return rows[0]


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(value[0])]
    if isinstance(value, tuple):
        return [_filled(value[0])] * value[1]
    return {90: -48.858, 180: -122.294}.get(value, PHRASE)


class Counting(Decoder):
    """Counts its passes."""

    passes = 0
    drafting = True

    def _check(self, hidden: Any, answer: Written) -> tuple[int, int]:
        self.passes += 1
        return super()._check(hidden, answer)

    def _guess(self, hidden: Any, state: int) -> list[int]:
        return super()._guess(hidden, state) if self.drafting else []
