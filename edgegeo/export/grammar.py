"""Grammar of a bundle: the automaton of `export/automaton.py` compiled with the checkpoint's tokenizer.

A token is allowed in a state if its bytes lead to a live state, however the text is cut into tokens: digits in tokens
of several digits, blanks in front, letters in pieces. No library does this: llguidance, outlines-core and xgrammar
bring compiled wheels to the Jetson and scan the vocabulary at start, while six fixed forms need a table of 100 kB.

grammar.npz (`runtime/grammar.py` reads it), states counted from 0 in the order they are found:
  modes (M) names, starts (M) first state of each
  offsets (S+1), tokens, nexts      transitions by state, sorted by token; next -1 takes one of the base row away
  base (S), dense (D, V) int16      states that read free text: row of `dense`, -1 for the others; entries are relative
  home (S)                          to `home`, so that all strings share one row; DEAD where a token is not allowed
  forced_offsets (S+1), forced      tokens of the only continuation, and forced_end (S), the state behind it
  distance (S)                      fewest tokens to the end of the answer; 0: it is complete
  row_tokens (R), rows (R, H), bias (R or 0)   float32 head rows of the tokens among which an answer chooses
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.export.automaton import OPEN, Automaton, add_answer, add_caption, add_reason
from edgegeo.export.graph import array
from edgegeo.export.vocabulary import token_bytes
from edgegeo.models.checkpoint import AnswerForm

GRAMMAR_NAME = "grammar.npz"
DEAD = np.iinfo(np.int16).min
MANY = 1024
"""States that allow more tokens than this, or half of the vocabulary, are stored as differences from a dense row."""
SAMPLES = b"aA012579+-"
"""What may come behind a forced text, to see whether it would be cut into other tokens."""
FAR = 1 << 30
Ints = NDArray[np.int64]
Stored = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def write_grammar(tokenizer: Any, head: Any, form: AnswerForm, folder: Path, stored: Stored = np.asarray) -> str:
    """Compile the grammar and write it into `folder`; returns the file's name.

    tokenizer: tokenizers.Tokenizer; head: the torch Linear (vocabulary, hidden) of the role that generates, of which
    the rows are kept as the bundle's own head has them, which `stored` makes of them: the grammar narrows that model,
    not another.
    CheckpointError for a tokenizer of an unknown kind.
    """
    weight = head.weight
    compiled: dict[str, Any] = _compiled(tokenizer.to_str(), weight.shape[0], form)
    rows = compiled["row_tokens"].tolist()
    bias = np.zeros(0, np.float32) if head.bias is None else array(head.bias[rows])
    with (folder / GRAMMAR_NAME).open("wb") as file:
        kept = stored(np.ascontiguousarray(array(weight[rows])))
        np.savez_compressed(file, rows=kept, bias=bias, **compiled)
    return GRAMMAR_NAME


@lru_cache(maxsize=4)
def _compiled(description: str, size: int, form: AnswerForm) -> dict[str, NDArray[Any]]:
    # An export writes the same grammar into the exact bundle and into the quantised one.
    from tokenizers import Tokenizer

    return compile_grammar(Tokenizer.from_str(description), size, form)


def compile_grammar(tokenizer: Any, size: int, form: AnswerForm) -> dict[str, NDArray[Any]]:
    """The arrays of grammar.npz but the head's rows; size: rows of the head."""
    a = Automaton()
    answer = add_answer(a, form)
    starts = {"answer": a.state(), "reason": add_reason(a, answer), "caption": add_caption(a, max(form.decimals, 1))}
    a.literal([starts["answer"]], OPEN, answer)
    if form.lead:
        for mode, start in starts.items():
            starts[mode] = a.state()
            a.literal([starts[mode]], form.lead, start)
    return _Compiler(a, tokenizer, size).arrays(starts)


@dataclass
class _Row:
    """Transitions of one state: token ids ascending, states of the automaton."""

    tokens: Ints
    nexts: Ints


@dataclass
class _Compiler:
    automaton: Automaton
    tokenizer: Any
    size: int
    rows: dict[int, _Row] = field(default_factory=dict)
    before: dict[int, bytes] = field(default_factory=dict)
    """A text that leads to each state, its last bytes."""

    def __post_init__(self) -> None:
        self.table = self.automaton.table()
        self.words = token_bytes(self.tokenizer, self.size)
        self.lengths = np.array([len(word) for word in self.words], np.int64)
        self.at = np.concatenate([[0], np.cumsum(self.lengths)])
        self.letters = np.frombuffer(b"".join(self.words), np.uint8)
        first = np.array([word[0] if word else 256 for word in self.words])
        self.begins = [np.flatnonzero(first == value) for value in range(256)]

    def arrays(self, starts: dict[str, int]) -> dict[str, NDArray[Any]]:
        self._walk(starts.values())
        forced = {state: self._forced(state) for state in self.rows}
        distance = self._distances(forced)
        live = [state for state in self.rows if distance.get(state, FAR) < FAR]
        number = np.full(len(self.table), -1, np.int64)
        number[live] = np.arange(len(live))
        rows = []
        for state in live:
            row = self.rows[state]
            keep = number[row.nexts] >= 0
            rows.append(_Row(row.tokens[keep], number[row.nexts[keep]]))
        runs = [forced[state] for state in live]
        named = list(starts)
        from_answer = self._reached(rows, [run[0] for run in runs], int(number[starts["answer"]]))
        return {
            "modes": np.array(named), "starts": number[[starts[mode] for mode in named]].astype(np.int32),
            "distance": np.array([distance[state] for state in live], np.int32),
            "forced": np.array([token for run, _ in runs for token in run], np.int32),
            "forced_offsets": _offsets([len(run) for run, _ in runs]),
            "forced_end": number[[end for _, end in runs]].astype(np.int32),
            "row_tokens": from_answer, **_packed(rows, self.size),
        }  # fmt: skip

    def _walk(self, starts: Any) -> None:
        """Rows of all states that tokens reach."""
        waiting = list(dict.fromkeys(starts))
        self.before = dict.fromkeys(waiting, b"")
        while waiting:
            state = waiting.pop(0)
            row = self.rows[state] = self._row(state)
            found, where = np.unique(row.nexts, return_index=True)
            for target, index in zip(found.tolist(), where.tolist(), strict=True):
                if target not in self.before:
                    self.before[target] = (self.before[state] + self.words[int(row.tokens[index])])[-16:]
                    waiting.append(target)

    def _row(self, state: int) -> _Row:
        tokens, nexts = [], []
        values = np.flatnonzero(self.table[state])
        active = np.concatenate([self.begins[value] for value in values]) if len(values) else np.empty(0, np.int64)
        states = np.full(len(active), state, np.int64)
        for place in range(int(self.lengths.max(initial=0))):
            if not len(active):
                break
            states = self.table[states, self.letters[self.at[active] + place]].astype(np.int64)
            over = (self.lengths[active] == place + 1) & (states > 0)
            tokens.append(active[over])
            nexts.append(states[over])
            more = (self.lengths[active] > place + 1) & (states > 0)
            active, states = active[more], states[more]
        if not tokens:
            return _Row(np.empty(0, np.int64), np.empty(0, np.int64))
        ids = np.concatenate(tokens)
        order = np.argsort(ids)
        return _Row(ids[order], np.concatenate(nexts)[order])

    def _forced(self, state: int) -> tuple[list[int], int]:
        """Tokens that must follow in the tokenizer's own cut, and the state behind them; none where there is a choice.

        A token counts only if it is cut the same way whatever comes next: ", 4" may be "," and " 4".
        """
        row = self.rows[state]
        if len(row.tokens) == 1:
            return [int(row.tokens[0])], int(row.nexts[0])
        text, end = b"", state
        while len(ways := self.automaton.edges[end]) == 1:
            ((value, end),) = ways.items()
            text += bytes([value])
        if not text:
            return [], state
        following = [bytes([value]) for value in SAMPLES if value in self.automaton.edges[end]]
        cuts = [self._cut(self.before[state], text, after) for after in following or [b""]]
        run: list[int] = []
        for column in zip(*cuts, strict=False):
            if len(set(column)) > 1:
                break
            run.append(column[0])
        end = state
        for token in run:
            (index,) = np.flatnonzero(self.rows[end].tokens == token)
            end = int(self.rows[end].nexts[index])
        return run, end

    def _cut(self, before: bytes, text: bytes, after: bytes) -> list[int]:
        """Tokens of `text` between its neighbours; those that reach beyond it, and all after them, are left out."""
        lead = before.decode(errors="ignore")
        wanted = text.decode()
        coded = self.tokenizer.encode(lead + wanted + after.decode(), add_special_tokens=False)
        out: list[int] = []
        at = 0
        for token, (begin, _) in zip(coded.ids, coded.offsets, strict=True):
            if begin < len(lead):
                continue
            word = self.words[token] if token < self.size else b""
            if not word or text[at : at + len(word)] != word or (not out and begin != len(lead)):
                break
            out.append(token)
            at += len(word)
        return out

    def _distances(self, forced: dict[int, tuple[list[int], int]]) -> dict[int, int]:
        """Fewest tokens from each state to an accepting one, along forced runs where there are any."""
        back: dict[int, list[tuple[int, int]]] = {}
        for state, row in self.rows.items():
            run, end = forced[state]
            ways = [(end, len(run))] if run else [(target, 1) for target in np.unique(row.nexts).tolist()]
            for target, cost in ways:
                back.setdefault(target, []).append((state, cost))
        distance = {state: 0 for state in self.rows if state in self.automaton.accepting}
        heap = [(0, state) for state in distance]
        while heap:
            far, state = heapq.heappop(heap)
            if far > distance[state]:
                continue
            for source, cost in back.get(state, ()):
                if far + cost < distance.get(source, FAR):
                    distance[source] = far + cost
                    heapq.heappush(heap, (far + cost, source))
        return distance

    def _reached(self, rows: Sequence[_Row], runs: Sequence[list[int]], start: int) -> NDArray[np.int32]:
        """Tokens among which answers choose, from `start` on."""
        seen, waiting = {start}, [start]
        found: set[int] = set()
        while waiting:
            state = waiting.pop()
            if not runs[state]:
                found.update(rows[state].tokens.tolist())
            for target in np.unique(rows[state].nexts).tolist():
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return np.array(sorted(found), np.int32)


def _packed(rows: Sequence[_Row], size: int) -> dict[str, NDArray[Any]]:
    """Transitions as lists, and as differences from a few dense rows where nearly everything is allowed."""
    dense: list[NDArray[np.int16]] = []
    base, home = np.full(len(rows), -1, np.int32), np.zeros(len(rows), np.int32)
    lists: list[_Row] = []
    for state, row in enumerate(rows):
        if len(row.tokens) <= min(MANY, size // 2):
            lists.append(row)
            continue
        values, counts = np.unique(row.nexts, return_counts=True)
        home[state] = values[np.argmax(counts)]
        whole = np.full(size, DEAD, np.int16)
        whole[row.tokens] = np.clip(row.nexts - home[state], DEAD + 1, -DEAD - 1)
        differing = [int((known != whole).sum()) for known in dense]
        if not dense or min(differing) > max(64, size // 64):
            dense.append(whole)
            differing.append(0)
        base[state] = int(np.argmin(differing))
        other = np.flatnonzero(dense[base[state]] != whole)
        nexts = np.full(size, -1, np.int64)
        nexts[row.tokens] = row.nexts
        lists.append(_Row(other, nexts[other]))
    return {
        "offsets": _offsets([len(row.tokens) for row in lists]),
        "tokens": np.concatenate([row.tokens for row in lists]).astype(np.int32),
        "nexts": np.concatenate([row.nexts for row in lists]).astype(np.int32),
        "base": base, "home": home, "dense": np.array(dense, np.int16).reshape(len(dense), size),
    }  # fmt: skip


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)
