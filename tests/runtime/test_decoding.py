"""Decoding under a grammar against the plain way: the whole prompt and the whole head again for every token."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_grammar import add_grammar

from edgegeo.errors import BundleError, InputError
from edgegeo.runtime import Decoding, Generated, Generator, Model, decoding, generate, parse_answer
from edgegeo.runtime.decoding import Decoder, Written
from edgegeo.runtime.grammar import Grammar
from edgegeo.runtime.sampling import draw, log_totals
from edgegeo.runtime.tokens import fill
from edgegeo.runtime.trunk import TrunkInput

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def path(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_grammar(tiny_bundle, tmp_path_factory.mktemp("grammar") / "tiny").path


@pytest.fixture(scope="module")
def generator(path: Path) -> Generator:
    return Generator.open(path, threads=1)


def picture(seed: int = 5) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))


class Plain:
    """Logits by recomputing everything."""

    def __init__(self, generator: Generator, image: Image.Image, phrasing: int = 0) -> None:
        self.model, self.generator = generator.model, generator
        prompt = [generator.role.prompt, *generator.role.phrasings][phrasing]
        features = self.model.features("vision", self.model.prepare([image]))
        self.embeds = self.model.assemble([fill(prompt)], [features]).embeds

    def logits(self, tokens: list[int]) -> np.ndarray:
        rows = self.model.rows(np.array([tokens], np.int64).reshape(1, -1))
        embeds = np.concatenate([self.embeds, rows], axis=1)
        length = embeds.shape[1]
        hidden = self.model.trunk("trunk").hidden(TrunkInput(embeds, np.array([length])), np.array([[length - 1]]))
        return self.model.session("head").run(None, {"hidden_states": hidden})[0][0, 0].astype(np.float64)

    def scored(self, answer: Generated, mode: str = "answer") -> float:
        """Log-probability of an answer's tokens among the allowed ones; every token must be allowed."""
        grammar = self.generator.grammar
        assert grammar is not None
        state, at, total = grammar.start(mode), 0, 0.0
        tokens = list(answer.tokens)
        while not grammar.complete(state):
            run, end = grammar.forced(state)
            if run:
                assert tokens[at : at + len(run)] == run
                at, state = at + len(run), end
                continue
            choices = grammar.choices(state)
            index = choices.tokens.tolist().index(tokens[at])
            scores = self.logits(tokens[:at])[choices.tokens]
            total += scores[index] - log_totals(scores[None])[0]
            state, at = int(choices.nexts[index]), at + 1
        assert at == len(tokens)
        return total

    def greedy(self) -> list[int]:
        grammar = self.generator.grammar
        assert grammar is not None
        state, tokens = grammar.start("answer"), list[int]()
        while not grammar.complete(state):
            run, end = grammar.forced(state)
            if run:
                tokens, state = tokens + run, end
                continue
            choices = grammar.choices(state)
            index = int(self.logits(tokens)[choices.tokens].argmax())
            tokens, state = [*tokens, int(choices.tokens[index])], int(choices.nexts[index])
        return tokens


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_forced_runs_few_rows_and_the_cache_change_nothing(generator: Generator, seed: int) -> None:
    answer, plain = generator.answer(picture(seed)), Plain(generator, picture(seed))
    assert list(answer.tokens) == plain.greedy()
    assert answer.logprob == pytest.approx(plain.scored(answer), abs=1e-3)
    assert answer.text == generator.model.tokenizer.decode(answer.tokens)
    assert answer.position is not None
    assert answer.position == parse_answer(answer.text)


class Guesser(Decoder):
    """Drafts the answer that it is given, but with another token at each of some places; counts its passes."""

    truth: tuple[int, ...] = ()
    wrong: frozenset[int] = frozenset()
    passes = 0

    def _guess(self, hidden: np.ndarray, state: int) -> list[int]:
        at = self._place(state)
        return [token + 1 if at + n in self.wrong else token for n, token in enumerate(self.truth[at:-1])]

    def _place(self, wanted: int) -> int:
        """How many tokens of the truth lead to a state."""
        assert self.grammar is not None
        tokens, state = self.grammar.forced(self.grammar.start(self.settings.mode))
        at = len(tokens)
        while state != wanted:
            choices = self.grammar.choices(state)
            run, state = self.grammar.forced(int(choices.nexts[choices.tokens.tolist().index(self.truth[at])]))
            at += 1 + len(run)
        return at

    def _check(self, hidden: np.ndarray, answer: Written) -> tuple[int, int]:
        type(self).passes += 1
        return super()._check(hidden, answer)


@pytest.mark.parametrize("wrong", [(), (9,), (8, 9, 11), range(60)])
@pytest.mark.parametrize("settings", [Decoding(), Decoding(temperature=1.0, seed=4)])
def test_right_and_wrong_drafts_leave_the_answer_alone(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, wrong: Sequence[int], settings: Decoding
) -> None:
    monkeypatch.setattr(decoding, "LONGEST_DRAFT", 0)
    features = generator.model.features("vision", generator.model.prepare([picture(8)]))
    single = generator.features(features, settings)[0]
    monkeypatch.setattr(generate, "Decoder", Guesser)
    monkeypatch.setattr(Guesser, "truth", single.tokens)
    monkeypatch.setattr(Guesser, "wrong", frozenset(wrong))
    monkeypatch.setattr(Guesser, "passes", 0)
    drafted = generator.features(features, settings)[0]
    assert drafted.tokens == single.tokens
    assert drafted.logprob == pytest.approx(single.logprob, abs=1e-4)
    assert Guesser.passes == 1 if not wrong else Guesser.passes > 1


@pytest.mark.parametrize("mode", ["answer", "reason"])
@pytest.mark.parametrize("dialect", ["ort", "trt"])
def test_drafts_of_its_own_leave_the_answer_alone(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, mode: str, dialect: str
) -> None:
    # The dialect chooses the cache; the graph does with either.
    monkeypatch.setattr(generator.model.trunk(generator.role.trunk), "dialect", dialect)
    settings = [Decoding(mode, temperature=t, seed=seed, free_logprob=True) for seed in range(6) for t in (0.0, 1.0)]
    settings = [replace(one, max_new_tokens=40) for one in settings]
    drafted = [generator.answer(picture(one.seed), one) for one in settings]
    monkeypatch.setattr(decoding, "LONGEST_DRAFT", 0)
    for one, answer in zip(settings, drafted, strict=True):
        single = generator.answer(picture(one.seed), one)
        assert answer.tokens == single.tokens
        assert answer.logprob == pytest.approx(single.logprob, abs=1e-4)
        assert answer.free_logprob == pytest.approx(single.free_logprob, abs=1e-3)


def test_rows_of_a_batch_are_the_answers_alone(generator: Generator) -> None:
    images = [picture(seed) for seed in range(5)]
    together = generator.answers(images)
    assert [a.tokens for a in together] == [generator.answer(image).tokens for image in images]


def test_without_the_grammar_it_is_plain_greedy(generator: Generator, tiny_bundle: Path) -> None:
    free = generator.answer(picture(), Decoding(grammar=False, max_new_tokens=12))
    assert free == Generator.open(tiny_bundle, threads=1).answer(picture())
    assert free.position is None


def test_few_rows_score_as_the_whole_head(generator: Generator) -> None:
    grammar = generator.grammar
    assert grammar is not None
    choices = grammar.choices(grammar.forced(grammar.start("answer"))[1])
    hidden = np.random.default_rng(0).normal(size=(1, 1, 32)).astype(np.float32)
    whole = generator.model.session("head").run(None, {"hidden_states": hidden})[0][0, 0]
    assert choices.rows is not None
    np.testing.assert_allclose(choices.scores(hidden[0])[0], whole[choices.tokens], atol=1e-5)


def test_candidates_are_seeded_and_scored(generator: Generator) -> None:
    drawn = generator.candidates(picture(), 7, Decoding(temperature=1.0, seed=3))
    assert drawn == generator.candidates(picture(), 7, Decoding(temperature=1.0, seed=3))
    other = generator.candidates(picture(), 7, Decoding(temperature=1.0, seed=4))
    assert [c.tokens for c in drawn] != [c.tokens for c in other]
    assert drawn[0].tokens == generator.answer(picture()).tokens
    assert [c.phrasing for c in drawn] == [0, 1, 2, 0, 1, 2, 0]
    assert len({c.tokens for c in drawn}) > 3
    for candidate in drawn:
        plain = Plain(generator, picture(), candidate.phrasing)
        assert candidate.logprob == pytest.approx(plain.scored(candidate), abs=1e-3)
        assert candidate.position is not None


def test_a_seed_stands_for_its_row(generator: Generator) -> None:
    few = generator.candidates(picture(), 4, Decoding(temperature=1.0, seed=3))
    many = generator.candidates(picture(), 32, Decoding(temperature=1.0, seed=3))
    assert [c.tokens for c in few] == [c.tokens for c in many[:4]]


def test_free_logprob_is_that_of_the_whole_head(generator: Generator) -> None:
    settings = Decoding(temperature=0.8, free_logprob=True, seed=9)
    for answer in generator.candidates(picture(), 5, settings):
        plain, tokens = Plain(generator, picture(), answer.phrasing), list(answer.tokens)
        rows = [plain.logits(tokens[:at]) for at in range(len(tokens))]
        wanted = sum(row[token] - log_totals(row[None])[0] for row, token in zip(rows, tokens, strict=True))
        assert answer.free_logprob == pytest.approx(wanted, abs=1e-2)
    greedy = generator.features(
        generator.model.features("vision", generator.model.prepare([picture(), picture(1)])),
        Decoding(free_logprob=True),
    )
    assert all(answer.free_logprob is not None and answer.free_logprob < answer.logprob for answer in greedy)


def test_beams_are_sorted_scored_and_no_worse_than_greedy(generator: Generator) -> None:
    best = generator.candidates(picture(), 6, Decoding(beams=6))
    assert [b.logprob for b in best] == sorted((b.logprob for b in best), reverse=True)
    assert len({b.tokens for b in best}) == len(best) == 6
    plain = Plain(generator, picture())
    for answer in best:
        assert answer.logprob == pytest.approx(plain.scored(answer), abs=1e-3)
    assert best[0].logprob >= generator.answer(picture()).logprob - 1e-4
    assert generator.answer(picture(), Decoding(beams=6)).tokens == best[0].tokens


def test_pieces_join_to_the_answer(generator: Generator) -> None:
    heard: list[tuple[int, tuple[int, ...], str]] = []
    answer = generator.answer(picture(), listener=lambda *piece: heard.append(piece))
    assert "".join(text for _, _, text in heard) == answer.text
    assert tuple(token for _, tokens, _ in heard for token in tokens) == answer.tokens
    assert len(heard) > 3
    heard.clear()
    drawn = generator.candidates(picture(), 4, listener=lambda *piece: heard.append(piece))
    for number, one in enumerate(drawn):
        assert "".join(text for row, _, text in heard if row == number) == one.text


@pytest.mark.parametrize("budget", [24, 60])
def test_reasons_come_first_and_the_budget_is_kept(generator: Generator, budget: int) -> None:
    for seed in range(3):
        settings = Decoding(mode="reason", temperature=1.0, seed=seed, max_new_tokens=budget)
        answer = generator.answer(picture(), settings)
        assert answer.position is not None, answer.text
        assert len(answer.tokens) <= budget
        assert not answer.text.startswith("<answer>")
        assert answer.text.endswith("</answer>")


def test_a_mode_without_room_says_so(generator: Generator) -> None:
    with pytest.raises(InputError, match="shortest answer in the mode 'caption' has"):
        generator.answer(picture(), Decoding(mode="caption"))
    with pytest.raises(InputError, match="shortest answer in the mode 'answer' has"):
        generator.answer(picture(), Decoding(max_new_tokens=5))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "poem"}, "unknown answer mode"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"beams": 0}, "beams"),
        ({"beams": 2, "temperature": 0.5}, "beams"),
        ({"mode": "reason", "grammar": False}, "is a grammar"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_mean_nothing(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Decoding(**settings)


def test_candidates_that_make_no_sense(generator: Generator, tiny_bundle: Path) -> None:
    for count in (0, 33):
        with pytest.raises(InputError, match="between 1 and 32"):
            generator.candidates(picture(), count)
    with pytest.raises(InputError, match="all be the same"):
        generator.candidates(picture(), 2, Decoding())
    bare = Generator.open(tiny_bundle, threads=1)
    for settings in (Decoding(grammar=True), Decoding(mode="reason"), Decoding(beams=2)):
        with pytest.raises(InputError, match="no grammar"):
            bare.answer(picture(), settings)
    assert len(bare.candidates(picture(), 3)) == 3  # without a grammar they are drawn from all tokens


def test_a_damaged_grammar_is_told(path: Path, generator: Generator, tmp_path: Path) -> None:
    spec = generator.model.bundle.decoder
    with np.load(path / "grammar.npz") as stored:
        arrays = dict(stored)
    damages = {
        "base": arrays["base"][:-1],
        "tokens": arrays["tokens"] + spec.vocab,
        "nexts": arrays["nexts"] + len(arrays["distance"]),
        "rows": arrays["rows"][:, :-1],
        "dense": arrays["dense"][:, :-1],
    }
    for name, array in damages.items():
        np.savez(tmp_path / "bad.npz", **{**arrays, name: array})
        with pytest.raises(BundleError, match="no grammar of this bundle"):
            Grammar(tmp_path / "bad.npz", spec.vocab, spec.hidden)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(BundleError, match="no grammar of this bundle"):
        Grammar(tmp_path / "bad.npz", spec.vocab, spec.hidden)


def test_sampling_follows_the_shares_and_the_nucleus() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.15, 0.5, 0.05, 0.3])
    scores = np.tile(np.log(shares), (4000, 1)).astype(np.float32)

    def drawn(temperature: float, top_p: float) -> np.ndarray:
        return np.bincount(draw(scores, temperature, top_p, rng.random(4000)), minlength=4) / 4000

    np.testing.assert_allclose(drawn(1.0, 1.0), shares, atol=0.03)
    np.testing.assert_allclose(drawn(1.0, 0.79), [0, 0.625, 0, 0.375], atol=0.03)
    np.testing.assert_allclose(drawn(1.0, 0.81), [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95], atol=0.03)
    np.testing.assert_array_equal(drawn(0.01, 1.0), [0, 1, 0, 0])
    np.testing.assert_array_equal(drawn(1.0, 1e-9), [0, 1, 0, 0])
    assert draw(scores[:2], 1.0, 1.0, np.array([0.0, np.nextafter(1, 0)])).tolist() == [1, 2]
    assert draw(scores[:1], 5e-324, 1.0, np.array([0.99])).tolist() == [int(scores[0].argmax())]
    assert log_totals(np.array([[1e4, 1e4]], np.float32))[0] == pytest.approx(1e4 + np.log(2))


def test_expanded_rows_go_on_like_the_first(generator: Generator) -> None:
    model: Model = generator.model
    trunk, rng = model.trunk("trunk"), np.random.default_rng(0)
    embeds = rng.normal(size=(1, 9, 32)).astype(np.float32)
    whole = trunk.hidden(TrunkInput(embeds, np.array([9])), np.arange(9)[None])
    cache = trunk.cache(1, 16)
    cache.extend(TrunkInput(embeds[:, :5], np.array([5])), np.array([[4]]))
    wide = cache.expand(3)
    np.testing.assert_allclose(cache.append(embeds[:, 5:8])[0, 0], whole[0, 7], atol=1e-5)
    wide.step_embeds[:] = embeds[:, 5:6]
    wide.step_embeds[1] += 1  # a row that went another way, and takes up the first one's again
    wide.step()
    wide.reorder(np.array([2, 0, 0]), 5)
    for at in (6, 7):
        wide.step_embeds[:] = embeds[:, at : at + 1]
        hidden = wide.step()
        np.testing.assert_allclose(hidden[:, 0], np.repeat(whole[:, at], 3, axis=0), atol=1e-5)


def test_the_role_without_phrasings_draws_one_batch(generator: Generator, path: Path) -> None:
    alone = Generator.open(path, threads=1)
    alone.role = replace(alone.role, phrasings=())
    drawn = alone.candidates(picture(), 5)
    assert {c.phrasing for c in drawn} == {0}
    assert drawn[0].tokens == alone.answer(picture()).tokens
