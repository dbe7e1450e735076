"""GPS generation: picture in, answer text out; one answer, or several candidates from one prefill."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgegeo.bundle import Bundle, GenerateRole
from edgegeo.errors import BundleError, InputError
from edgegeo.geo import Position
from edgegeo.runtime.answer import parse_answer
from edgegeo.runtime.decoding import Cache, Decoder, Listener, Written, free_logprob
from edgegeo.runtime.grammar import Grammar
from edgegeo.runtime.image import Source
from edgegeo.runtime.model import Model
from edgegeo.runtime.pictures import ImageTokens, positions_of
from edgegeo.runtime.sampling import Decoding
from edgegeo.runtime.tokens import Piece, fill
from edgegeo.runtime.trunk import Floats, TrunkInput

MOST_CANDIDATES = 32
SAMPLING = Decoding(temperature=0.7, top_p=0.95)
"""How candidates are drawn unless told otherwise."""
_ROOM = {"answer": 0, "reason": 256, "caption": 1536}
"""Tokens that a mode may write at least, where the model has room for them."""


@dataclass(frozen=True)
class Generated:
    """One generated answer."""

    text: str
    """What the model wrote, without the stop token."""
    position: Position | None
    """The position in it; None if there is none."""
    logprob: float
    """Sum of the log-probabilities of the tokens among those that were allowed: forced ones count nothing. Without a
    grammar all tokens are allowed, and the stop token is included. Of the model itself, at temperature 1."""
    tokens: tuple[int, ...]
    """Token ids of the text."""
    free_logprob: float | None = None
    """Log-probability of the same tokens with all tokens allowed; None if `Decoding.free_logprob` did not ask."""
    phrasing: int = 0
    """Which wording of the question was asked: 0 is the prompt, n the n-th of the bundle's other phrasings."""
    prompt_tokens: int = 0
    """Positions that were read before the answer, image tokens included."""
    cut: bool = False
    """Whether the text ends because it reached its limit."""


class Generator:
    """Answers as GeoLocSFT (arXiv 2506.01277) asks for them: one greedy pass, or K candidates."""

    def __init__(self, model: Model) -> None:
        role = model.bundle.manifest.roles.generate
        if role is None:
            raise BundleError(f"{model.bundle.path}: the bundle offers no GPS generation; export it with that role")
        self.model = model
        self.role: GenerateRole = role
        self.grammar = Grammar.open(model.bundle)

    @classmethod
    def open(
        cls, bundle: str | Path | Bundle | Model, threads: int | None = None, provider: str = "cpu"
    ) -> "Generator":
        """From a bundle's folder, an opened bundle, or a Model whose sessions are shared."""
        return cls(Model.open(bundle, threads, provider))

    def answer(self, image: Source, decoding: Decoding | None = None, listener: Listener | None = None) -> Generated:
        """The answer for one picture; `listener` hears of every piece of text as soon as it is there."""
        picture = self.model.features(self.role.vision, self.model.prepare([image]))
        return self.features(picture, decoding, listener)[0]

    def answers(self, images: Sequence[Source], batch: int = 16, decoding: Decoding | None = None) -> list[Generated]:
        """Answers for many pictures; the rows of a batch are decoded together and stop one by one."""
        out: list[Generated] = []
        for start in range(0, len(images), max(1, batch)):
            pictures = self.model.prepare(images[start : start + max(1, batch)])
            out += self.features(self.model.features(self.role.vision, pictures), decoding)
        return out

    def candidates(
        self, image: Source, count: int, decoding: Decoding = SAMPLING, listener: Listener | None = None
    ) -> list[Generated]:
        """`count` answers (1 to 32) for one picture: the most likely one first, the others drawn at the temperature.

        They share one prefill and are decoded as a batch; where the bundle has several phrasings of the question,
        candidates ask in turn, each phrasing with its own batch behind the shared picture. With `Decoding.beams` they
        are the best of a beam search instead, most likely first, and can be fewer than asked for.
        """
        picture = self.model.features(self.role.vision, self.model.prepare([image]))[0]
        return self.candidates_of(picture, count, decoding, listener)

    def candidates_of(
        self, picture: ImageTokens, count: int, decoding: Decoding = SAMPLING, listener: Listener | None = None
    ) -> list[Generated]:
        """`candidates` for a picture whose image tokens were computed already."""
        if not 1 <= count <= MOST_CANDIDATES:
            raise InputError(f"the number of candidates must be between 1 and {MOST_CANDIDATES}, not {count}")
        if decoding.beams > 1:
            return self._beams(picture, replace(decoding, beams=max(count, decoding.beams)))[:count]
        if count > 1 and decoding.temperature == 0:
            raise InputError("greedy candidates would all be the same; set a temperature above 0, or beams")
        prompts = [self.role.prompt, *self.role.phrasings]
        pieces = [fill(prompt) for prompt in prompts[:count]]
        shared = _shared(pieces)
        out: dict[int, Generated] = {}
        reader = _Reader(self, decoding, [picture], pieces, shared, count == 1)
        for phrasing in range(len(pieces)):
            numbers = list(range(phrasing, count, len(pieces)))
            decoder = reader.decoder
            decoder.listener = _renumbered(listener, numbers)
            cache, hidden = reader.read(phrasing)
            rows = [decoder.begin(number) for number in numbers]
            rows[0].greedy = phrasing == 0
            rows[0].draft = reader.draft
            mark = cache.mark().before(len(reader.draft))
            if len(rows) > 1:
                decoder.write(cache.expand(len(rows)), np.repeat(hidden, len(rows), axis=0), rows)
            else:
                decoder.write(cache, hidden, rows)
            cache.rewind(mark)
            for number, row in zip(numbers, rows, strict=True):
                out[number] = replace(self._result(row, reader, cache), phrasing=phrasing)
        return [out[number] for number in range(count)]

    def features(
        self, features: Sequence[ImageTokens], decoding: Decoding | None = None, listener: Listener | None = None
    ) -> list[Generated]:
        """Answers for pictures whose image tokens were computed already; those of one length are decoded together."""
        decoding = decoding or Decoding()
        if decoding.beams > 1:
            return [self._beams(one, decoding)[0] for one in features]
        alone = decoding.free_logprob
        groups: dict[int, list[int]] = {}
        for row, one in enumerate(features):
            groups.setdefault(-row if alone else positions_of(one.layout), []).append(row)
        out: dict[int, Generated] = {}
        for chosen in groups.values():
            heard = _renumbered(listener, chosen)
            out.update(zip(chosen, self._together([features[row] for row in chosen], decoding, heard), strict=True))
        return [out[row] for row in range(len(features))]

    def _together(
        self, features: Sequence[ImageTokens], decoding: Decoding, listener: Listener | None
    ) -> list[Generated]:
        reader = _Reader(self, decoding, features, [fill(self.role.prompt)], 0, len(features) == 1)
        cache, hidden = reader.read(0)
        reader.decoder.listener = listener
        rows = [reader.decoder.begin(row) for row in range(len(features))]
        rows[0].draft = reader.draft
        mark = cache.mark().before(len(reader.draft))
        reader.decoder.write(cache, hidden, rows)
        cache.rewind(mark)
        return [self._result(row, reader, cache) for row in rows]

    def _beams(self, picture: ImageTokens, decoding: Decoding) -> list[Generated]:
        if self.grammar is None:
            raise InputError(f"{self.model.bundle.path} has no grammar to follow with beams; export it again")
        reader = _Reader(self, decoding, [picture], [fill(self.role.prompt)], 0)
        cache, hidden = reader.read(0)
        rows = reader.decoder.beam(cache, hidden, reader.decoder.begin())
        return [self._result(row, reader, cache) for row in rows]

    def _result(self, row: Written, reader: "_Reader", cache: Cache) -> Generated:
        text = self.model.tokenizer.decode(row.tokens)
        free = None
        if reader.decoder.settings.free_logprob and row.tokens:
            free = reader.free_logprob(cache, row.tokens)
        cut = reader.decoder.grammar is None and len(row.tokens) >= reader.decoder.budget
        return Generated(
            text, parse_answer(text), row.logprob, tuple(row.tokens), free, prompt_tokens=reader.used, cut=cut
        )


class _Reader:
    """Reads prompts: what they share once, then each to its end, the forced opening of the answer included."""

    def __init__(
        self, generator: Generator, decoding: Decoding, features: Sequence[ImageTokens],
        prompts: Sequence[list[Piece]], shared: int, single: bool = False,
    ) -> None:  # fmt: skip
        model, role = generator.model, generator.role
        self.model = model
        self.role = role
        self._features = features
        self._prompts, self._shared = prompts, shared
        grammar = _rules(generator, decoding)
        image = max(positions_of(one.layout) for one in features)
        used = max(sum(image if isinstance(p, int) else len(p) for p in pieces) for pieces in prompts)
        budget = _budget(generator, decoding, grammar, used)
        self.used = used
        self.decoder = Decoder(model, role.head, role.stop_ids, grammar, decoding, budget)
        self._opening = self.decoder.opening()
        self.draft = self.decoder.draft(budget - len(self._opening)) if single else []
        """Tokens read behind the opening that may prove right."""
        trunk = model.trunk(role.trunk)
        trunk.check_length(used + 1)
        self._cache = trunk.cache(len(features), min(used + budget, model.bundle.decoder.max_positions))
        self._last: Floats | None = None
        if shared:
            fed = self._assemble(prompts[0][:shared])
            self._cache.extend(fed, fed.lengths[:, None] - 1)
        self._fork = self._cache.mark()

    def read(self, prompt: int) -> tuple[Cache, Floats]:
        """The cache behind a prompt and the opening, and the hidden states (B, 1, H) of the last position."""
        self._cache.rewind(self._fork)
        pieces = self._prompts[prompt][self._shared :]
        behind = [*self._opening, *self.draft]
        fed = self._assemble([*pieces, *([np.array(behind, np.int64)] if behind else [])])
        # The last position of the prompt itself, whose hidden state says how likely the opening is.
        length = fed.embeds.shape[1]
        self._last = fed.embeds[:, length - len(behind) - 1 :][:, :1]
        asked = np.arange(length - len(self.draft) - 1, length)
        return self._cache, self._cache.extend(fed, np.tile(asked, (len(self._features), 1)))

    def free_logprob(self, cache: Cache, tokens: Sequence[int]) -> float:
        """Log-probability of an answer without a grammar; the cache stands behind prompt and opening, and stays so."""
        assert self._last is not None
        mark = cache.mark()
        back = len(self._opening) + 1
        cache.rewind(replace(mark, length=mark.length - back, rope=mark.rope - back))
        try:
            return free_logprob(self.model, self.role.head, cache, self._last, tokens)
        finally:
            cache.rewind(mark)

    def _assemble(self, pieces: Sequence[Piece]) -> TrunkInput:
        return self.model.assemble([pieces] * len(self._features), (self._features,))


def _rules(generator: Generator, decoding: Decoding) -> Grammar | None:
    wanted = decoding.grammar or decoding.mode != "answer"
    if wanted and generator.grammar is None:
        raise InputError(f"{generator.model.bundle.path} has no grammar; export it again, or decode without one")
    return None if decoding.grammar is False else generator.grammar


def _budget(generator: Generator, decoding: Decoding, grammar: Grammar | None, used: int) -> int:
    """Tokens that an answer may have; InputError where not even the shortest one fits."""
    spec = generator.model.bundle.decoder
    wanted = decoding.max_new_tokens or max(generator.role.max_new_tokens, _ROOM[decoding.mode])
    budget = min(wanted, spec.max_positions - used)
    if grammar is not None:
        least = int(grammar.distance[grammar.start(decoding.mode)])
        if budget < least:
            raise InputError(
                f"the shortest answer in the mode '{decoding.mode}' has {least} tokens, there is room for {budget}; "
                "allow more, or choose another mode"
            )
    return max(budget, 0)


def _shared(prompts: Sequence[Sequence[Piece]]) -> int:
    """Pieces that all prompts begin with, so that the picture is read once."""
    if len(prompts) < 2:
        return 0
    count = 0
    for pieces in zip(*prompts, strict=False):
        if not all(type(p) is type(pieces[0]) and np.array_equal(p, pieces[0]) for p in pieces[1:]):
            break
        count += 1
    # Every prompt needs a position of its own to go on from.
    return min(count, min(len(pieces) for pieces in prompts) - 1)


def _renumbered(listener: Listener | None, numbers: Sequence[int]) -> Listener | None:
    if listener is None:
        return None
    return lambda row, tokens, text: listener(numbers[row], tokens, text)
