"""The decode loop: tokens chosen one by one, forced ones fed along with them, several answers side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgegeo.runtime.grammar import Choices, Grammar
from edgegeo.runtime.growing import GrowingCache
from edgegeo.runtime.model import Model
from edgegeo.runtime.sampling import Decoding, draw, log_totals
from edgegeo.runtime.trunk import Floats, Head, KVCache

Cache = KVCache | GrowingCache
Listener = Callable[[int, tuple[int, ...], str], None]
"""Called with (number of the answer, new token ids, new text) whenever an answer has grown; with no tokens while its
last letter is unfinished. What it raises ends the writing."""
_HALF_A_LETTER = "\ufffd"
LONGEST_DRAFT = 24
_MISSES = 3
"""Drafts in a row of which nothing was right, before no more are made: reading them is not free."""


@dataclass
class Written:
    """One answer while it is written."""

    state: int = 0
    """Where the grammar stands."""
    tokens: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    """Tokens written that the decoder has not read yet."""
    logprob: float = 0.0
    done: bool = False
    greedy: bool = False
    """Whether the most likely token is taken each time, whatever the temperature."""
    number: int = 0
    """Which of the draws of a seed is its own."""
    told: int = 0
    told_text: str = ""
    draft: list[int] = field(default_factory=list)
    """Tokens guessed to follow, which the decoder has read already."""

    def copy(self) -> "Written":
        """A branch of this answer."""
        return Written(
            self.state, list(self.tokens), list(self.queue), self.logprob, self.done, self.greedy, self.number
        )


class Decoder:
    """Writes answers behind a prompt that a KV cache has read. Used for one call, by one thread."""

    def __init__(
        self, model: Model, head: str, stops: Sequence[int], grammar: Grammar | None, settings: Decoding, budget: int
    ) -> None:
        self.model = model
        self.grammar = grammar
        self.settings = settings
        self.budget = budget
        self.listener: Listener | None = None
        self._session = model.session(head)
        self._stops = frozenset(stops)
        self._head: Head | None = None
        self._chances: NDArray[np.float64] | None = None

    def opening(self) -> list[int]:
        """Tokens that every answer begins with: they are read together with the prompt."""
        return [] if self.grammar is None else self.grammar.forced(self.grammar.start(self.settings.mode))[0]

    def draft(self, room: int) -> list[int]:
        """Up to `room` tokens that may follow the opening, guessed before anything was seen."""
        if self.grammar is None:
            return []
        state = self.grammar.forced(self.grammar.start(self.settings.mode))[1]
        return self._guess(np.empty((0, 0), np.float32), state)[:room]

    def begin(self, number: int = 0) -> Written:
        """The answer with this number, so far consisting of the opening."""
        if self.grammar is None:
            return Written(number=number)
        tokens, state = self.grammar.forced(self.grammar.start(self.settings.mode))
        return Written(state, tokens, number=number)

    def write(self, cache: Cache, hidden: Floats, answers: Sequence[Written]) -> None:
        """Finish all answers; one a row of the cache, hidden (B, 1, H) of the last position read.

        A single answer may have a draft, which the cache has read too: then hidden is (1, 1 + n, H) of the position
        before it and of its n tokens.
        """
        if len(answers) == 1:
            self._write_one(cache, hidden, answers[0])
            return
        while True:
            self._choose(hidden, answers)
            if self.listener is not None:
                self._tell(answers)
            if all(answer.done for answer in answers):
                return
            hidden = self._read(cache, answers)

    def _write_one(self, cache: Cache, hidden: Floats, answer: Written) -> None:
        """Finish an answer by drafts: what may follow is guessed, read in one pass and kept as far as it proves right.

        Every token is chosen by the hidden state behind the ones before it, so the answer is that of single steps. The
        next guess is what this pass says behind its own guess (Jacobi decoding, Santilli et al. 2023): the picture
        settles most digits, whatever stands before them.
        """
        missed = 0
        while True:
            right, at = self._check(hidden, answer)
            if self.listener is not None:
                self._tell([answer])
            cache.rewind(cache.mark().before(len(answer.draft) - right))
            if answer.done:
                return
            if answer.draft:
                missed = 0 if right else missed + 1
            room = self.budget - len(answer.tokens) if missed < _MISSES else 0
            answer.draft = self._guess(hidden[0, at:], answer.state)[:room]
            fed, answer.queue = [*answer.queue, *answer.draft], []
            if len(fed) == 1:
                cache.step_embeds[0, 0] = self.model.table[fed[0]]
                hidden = cache.step()
            else:
                hidden = cache.append(self.model.rows(np.array([fed])), 1 + len(answer.draft))

    def _check(self, hidden: Floats, answer: Written) -> tuple[int, int]:
        """Write as long as the draft agrees; returns how many of its tokens were right and how many were written."""
        at = 0
        while True:
            self._choose_one(hidden[:, at : at + 1], answer)
            agreed = _agreement(answer.queue, answer.draft[at:])
            right, at = at + agreed, at + len(answer.queue)
            del answer.queue[:agreed]
            if answer.queue or answer.done:
                return right, at

    def _choose_one(self, hidden: Floats, answer: Written) -> None:
        """`_choose` for one answer, without what only several need: the smallest models decode as fast as Python."""
        if self.grammar is not None and (choices := self._allowed(answer)).rows is not None:
            scores = choices.scores(hidden[0])
            index = int(self._pick(scores, [answer])[0])
            row = scores[0].astype(np.float64)
            top = row.max()
            answer.logprob += float(row[index] - top - np.log(np.exp(row - top).sum()))
            self._take(answer, int(choices.tokens[index]), int(choices.nexts[index]))
        else:
            self._choose(hidden, [answer])

    def _guess(self, hidden: Floats, state: int) -> list[int]:
        """Coordinates from `state` on: the likely tokens behind an older guess, by its hidden states (n, H).

        Where these end, each token is the middle one of those allowed: a digit of about 5.
        """
        draft: list[int] = []
        grammar = self.grammar
        while grammar is not None and len(draft) < LONGEST_DRAFT:
            choices = grammar.choices(state)
            if choices.rows is None:
                break
            best = len(choices.tokens) // 2
            if len(draft) < len(hidden):
                best = int(choices.scores(hidden[len(draft) : len(draft) + 1]).argmax())
            run, state = grammar.forced(int(choices.nexts[best]))
            if grammar.complete(state):
                break
            draft += [int(choices.tokens[best]), *run]
        return draft

    def beam(self, cache: Cache, hidden: Floats, begun: Written) -> list[Written]:
        """The most likely answers, best first; the cache's only row has read the prompt and the opening.

        Rows that end early keep their place among the beams, so shorter answers win only where they are more likely.
        """
        width, since, grammar = self.settings.beams, cache.length, self.grammar
        assert grammar is not None
        wide = cache.expand(width)
        live: list[Written] = [begun]
        over: list[Written] = []
        while live:
            logits = self._logits(hidden, live)
            ways: list[tuple[float, int, int, int]] = []  # logprob, parent, token, state; -1 for one that waits
            for parent, answer in enumerate(live):
                if answer.queue:
                    ways.append((answer.logprob, parent, -1, answer.state))
                    continue
                choices = self._allowed(answer)
                scores = self._scores(choices, hidden, logits, [parent])
                logprobs = scores[0].astype(np.float64) - log_totals(scores)
                best = np.argsort(-logprobs, kind="stable")[:width]
                ways += [(answer.logprob + logprobs[i], parent, choices.tokens[i], choices.nexts[i]) for i in best]
            floor = sorted((answer.logprob for answer in over), reverse=True)[width - 1 : width]
            ways = sorted(ways, key=lambda way: -way[0])[:width]
            parents, grown = [], []
            for logprob, parent, token, state in ways:
                if floor and logprob <= floor[0]:
                    continue
                answer = live[parent].copy()
                if token >= 0:
                    answer.logprob = float(logprob)
                    self._take(answer, int(token), int(state))
                if answer.done:
                    over.append(answer)
                else:
                    grown.append(answer)
                    parents.append(parent)
            live = grown
            if live:
                slots = np.array(parents + [0] * (width - len(parents)))
                wide.reorder(slots, since)
                hidden = self._read(wide, live)
        return sorted(over, key=lambda answer: -answer.logprob)[:width]

    def _choose(self, hidden: Floats, answers: Sequence[Written]) -> None:
        """One token for every answer whose turn it is; those that stand in one state are looked at together."""
        logits = self._logits(hidden, answers)
        together: dict[tuple[int, int], list[int]] = {}
        for row, answer in enumerate(answers):
            if not (answer.done or answer.queue):
                together.setdefault((answer.state, len(answer.tokens)), []).append(row)
        for rows in together.values():
            some = [answers[row] for row in rows]
            if self.grammar is None:
                assert logits is not None
                scores = logits if len(rows) == len(logits) else logits[rows]
                for answer, (token, logprob) in zip(some, self._picked(scores, some), strict=True):
                    self._write(answer, token, logprob)
                continue
            choices = self._allowed(some[0])
            if len(choices.tokens) > 1:
                picked = self._picked(self._scores(choices, hidden, logits, rows), some)
            else:
                picked = [(0, 0.0)] * len(rows)
            for answer, (index, logprob) in zip(some, picked, strict=True):
                answer.logprob += logprob
                self._take(answer, int(choices.tokens[index]), int(choices.nexts[index]))

    def _picked(self, scores: Floats, answers: Sequence[Written]) -> list[tuple[int, float]]:
        """Index and log-probability of one choice for each answer; scores (B, n)."""
        picks = self._pick(scores, answers)
        logprobs = scores[np.arange(len(picks)), picks] - log_totals(scores)
        return list(zip(picks.tolist(), logprobs.tolist(), strict=True))

    def _pick(self, scores: Floats, answers: Sequence[Written]) -> NDArray[np.intp]:
        best = np.asarray(scores.argmax(axis=1))
        if self.settings.temperature == 0:
            return best
        if self._chances is None:
            # Row by row, so that an answer's draws don't depend on how many others there are.
            shape = (max(answer.number for answer in answers) + 32, self.budget)
            self._chances = np.random.default_rng(self.settings.seed).random(shape)
        chances = np.array([self._chances[answer.number, len(answer.tokens)] for answer in answers])
        drawn = draw(scores, self.settings.temperature, self.settings.top_p, chances)
        return np.asarray(np.where([answer.greedy for answer in answers], best, drawn))

    def _write(self, answer: Written, token: int, logprob: float) -> None:
        """Write a token without a grammar."""
        answer.logprob += logprob
        if token in self._stops:
            answer.done = True
            return
        answer.tokens.append(token)
        answer.queue.append(token)
        answer.done = len(answer.tokens) >= self.budget

    def _take(self, answer: Written, token: int, state: int) -> None:
        """Write a token of the grammar and what must follow it."""
        assert self.grammar is not None
        run, answer.state = self.grammar.forced(state)
        answer.tokens += [token, *run]
        answer.queue += [token, *run]
        # What is complete need not be read: nothing is chosen behind it.
        answer.done = self.grammar.complete(answer.state)

    def _allowed(self, answer: Written) -> Choices:
        """The grammar's choices, less those from which the answer could not be finished within the budget."""
        assert self.grammar is not None
        choices, left = self.grammar.choices(answer.state), self.budget - len(answer.tokens)
        if left > choices.farthest:
            return choices
        near = np.flatnonzero(self.grammar.distance[choices.nexts] < left)
        if len(near) == len(choices.tokens):
            return choices
        rows = None if choices.rows is None else choices.rows[near]
        bias = None if choices.bias is None else choices.bias[near]
        return Choices(choices.tokens[near], choices.nexts[near], rows, bias)

    def _logits(self, hidden: Floats, answers: Sequence[Written]) -> Floats | None:
        """Logits (B, V) where any answer needs the whole head."""
        if self.grammar is not None:
            waiting = [a.state for a in answers if not (a.done or a.queue)]
            if all(self.grammar.choices(state).rows is not None for state in waiting):
                return None
        elif all(answer.done for answer in answers):
            return None
        if self._head is None or len(self._head.logits) != len(hidden):
            spec = self.model.bundle.decoder
            self._head = Head(self._session, len(hidden), spec.hidden, spec.vocab)
        return self._head.run(hidden)

    def _scores(self, choices: Choices, hidden: Floats, logits: Floats | None, rows: list[int]) -> Floats:
        """Logits (B, n) of the choices for some rows."""
        if choices.rows is not None:
            return choices.scores(hidden[rows, 0])
        assert logits is not None
        picked: Floats = logits[rows][:, choices.tokens]
        return picked

    def _read(self, cache: Cache, answers: Sequence[Written]) -> Floats:
        """Let the decoder read what was written, one token a row.

        GroupQueryAttention refuses several rows with several new positions; rows whose turn it is to choose are few
        steps apart, so nothing is gained by running them one by one.
        """
        tokens = np.zeros(cache.batch, np.int64)
        for row, answer in enumerate(answers):
            if answer.queue and not answer.done:
                tokens[row] = answer.queue.pop(0)
        cache.step_embeds[:, 0] = self.model.rows(tokens)
        return cache.step()

    def _tell(self, answers: Sequence[Written]) -> None:
        assert self.listener is not None
        for row, answer in enumerate(answers):
            if len(answer.tokens) > answer.told:
                text = self.model.tokenizer.decode(answer.tokens)
                if text.endswith(_HALF_A_LETTER) and not answer.done:
                    self.listener(row, (), "")
                    continue
                new = tuple(answer.tokens[answer.told :])
                self.listener(row, new, text[len(answer.told_text) :])
                answer.told, answer.told_text = len(answer.tokens), text


def _agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def free_logprob(model: Model, head: str, cache: Cache, last: Floats, tokens: Sequence[int]) -> float:
    """Log-probability of an answer's tokens as the model has it without a grammar.

    The cache's only row stands before the last prompt position, whose embedding (1, 1, H) is `last`. The whole head
    runs at every position, which is what decoding under a grammar saves.
    """
    embeds = np.concatenate([last, model.rows(np.array([tokens[:-1]], np.int64))], axis=1)
    hidden = cache.append(embeds, embeds.shape[1])
    logits = model.session(head).run(["logits"], {"hidden_states": hidden})[0][0]
    return float((logits[np.arange(len(tokens)), list(tokens)] - log_totals(logits)).sum())
