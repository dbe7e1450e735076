"""The grammar against independent rules: what it lets through, what it bars, however text is cut into tokens."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgegeo.errors import CheckpointError
from edgegeo.export.automaton import CAPTION, STYLES, TEXT
from edgegeo.export.grammar import compile_grammar
from edgegeo.export.vocabulary import token_bytes
from edgegeo.models.checkpoint import AnswerForm, packaged_checkpoint
from edgegeo.runtime import parse_answer
from edgegeo.runtime.grammar import MODES, Grammar

SMOLVLM = Path(__file__).parents[3] / "shared" / "data" / "smolvlm-500m" / "tokenizer.json"
NUMBERS = re.compile(r"([+-]?\d+(?:\.\d+)?)")


def sentencepiece() -> Tokenizer:
    """Blanks as U+2581, byte fallback, tokens of several digits and of half an answer: like Gemma's and worse."""
    pieces = [f"<0x{value:02X}>" for value in range(256)] + [chr(c) for c in range(0x21, 0x7F)]
    pieces += ["▁", "▁▁", "é", "▁-", "▁<", "an", "ans", "sw", "er", "</", "▁1", "90", "18", "180", "91", "12", "123",
               "1.", ".5", ", ", ",▁", '"}', '":', "▁{", '{"', "lat", "▁lon", ":▁", "</s>x", "<a", ">1"]  # fmt: skip
    specials = ["<pad>", "<eos>", "<image>"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*specials, *pieces]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, fuse_unk=True, unk_token="<pad>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(specials)
    tokenizer.add_tokens(["</answer>"])
    return tokenizer


def load(name: str) -> Tokenizer:
    if name == "sentencepiece":
        return sentencepiece()
    if name == "smolvlm" and not SMOLVLM.is_file():
        pytest.skip("the SmolVLM tokenizer lies in ../shared")
    return Tokenizer.from_file(str(SMOLVLM if name == "smolvlm" else packaged_checkpoint() / "tokenizer.json"))


class Case:
    """A tokenizer with its compiled grammar, as the runtime reads it."""

    def __init__(self, name: str, form: AnswerForm, folder: Path) -> None:
        self.form, self.tokenizer = form, load(name)
        size = self.tokenizer.get_vocab_size() + 3  # heads have rows that no token uses
        arrays: dict[str, Any] = compile_grammar(self.tokenizer, size, form)
        rows = np.zeros((len(arrays["row_tokens"]), 4), np.float32)
        file = folder / f"{name}.npz"
        np.savez(file, rows=rows, bias=np.zeros(0, np.float32), **arrays)
        self.grammar = Grammar(file, size, 4)
        self.words = token_bytes(self.tokenizer, size)

    def walk(self, mode: str, choose: Any, budget: int) -> bytes:
        """Text of a random answer that keeps a budget of tokens, as the decoder keeps it."""
        state, out, used = self.grammar.start(mode), b"", 0
        while True:
            run, state = self.grammar.forced(state)
            out, used = out + b"".join(self.words[token] for token in run), used + len(run)
            if self.grammar.complete(state):
                assert used <= budget
                return out
            choices = self.grammar.choices(state)
            near = np.flatnonzero(self.grammar.distance[choices.nexts] < budget - used)
            index = int(near[choose(len(near))])
            out, used = out + self.words[int(choices.tokens[index])], used + 1
            state = int(choices.nexts[index])

    def accepts(self, mode: str, text: str) -> bool:
        """Whether the tokenizer's own tokens of a text are all allowed, one after another, to the end."""
        state = self.grammar.start(mode)
        for token in self.tokenizer.encode(text, add_special_tokens=False).ids:
            if self.grammar.complete(state):
                return False
            choices = self.grammar.choices(state)
            found = np.flatnonzero(choices.tokens == token)
            if not len(found):
                return False
            state = int(choices.nexts[found[0]])
        return self.grammar.complete(state)


FORMS = {
    "pocket": AnswerForm("fixed", 1),
    "sentencepiece": AnswerForm(decimals=2),
    "smolvlm": AnswerForm(lead=" ", decimals=4),
}


@pytest.fixture(scope="module", params=list(FORMS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, FORMS[request.param], tmp_path_factory.mktemp("grammar"))


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("pocket", FORMS["pocket"], tmp_path_factory.mktemp("pocket"))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), mode=st.sampled_from(MODES[:2]), room=st.integers(0, 60))
def test_every_complete_answer_is_the_position_its_digits_say(
    case: Case, data: st.DataObject, mode: str, room: int
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    budget = int(case.grammar.distance[case.grammar.start(mode)]) + room
    text = case.walk(mode, lambda n: int(rng.integers(n)), budget).decode()
    found = parse_answer(text)
    assert found is not None, text
    inside = re.search(r"<answer>(.*)</answer>$", text)
    assert inside is not None
    lat, lon = (float(number) for number in NUMBERS.findall(inside.group(1)))
    assert (found.lat, found.lon) == (lat, lon)
    assert abs(lat) <= 90
    assert abs(lon) <= 180


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_complete_caption_is_json_with_the_papers_keys(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    budget = int(case.grammar.distance[case.grammar.start("caption")]) + 300
    text = case.walk("caption", lambda n: int(rng.integers(n)), budget).decode()
    found, written = parse_answer(text), json.loads(text)
    assert same_keys(written, CAPTION)
    place = written["answer"]["coordinates"]
    assert found is not None
    assert (found.lat, found.lon) == (place["latitude"], place["longitude"])


def same_keys(value: Any, shape: Any) -> bool:
    if isinstance(shape, dict):
        return (
            isinstance(value, dict) and list(value) == list(shape) and all(same_keys(value[k], shape[k]) for k in shape)
        )
    if isinstance(shape, list):
        return isinstance(value, list) and len(value) > 0 and all(same_keys(one, shape[0]) for one in value)
    if isinstance(shape, tuple):
        return shape[1] <= len(value) <= shape[2] and all(same_keys(one, shape[0]) for one in value)
    return isinstance(value, str if shape == TEXT else float)


def caption(value: Any, texts: Any, at: int = 0) -> Any:
    if isinstance(value, dict):
        return {key: caption(inner, texts) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [caption(value[0], texts) for _ in range(4 if isinstance(value, tuple) else 2)]
    return next(texts) if value == TEXT else round(value / 3, 3)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("plain", [True, False])
def test_captions_as_people_write_them_are_let_through(case: Case, style: tuple[str, str, int], plain: bool) -> None:
    words = ["asphalt, worn", "", 'a "quoted" \\ word', "Zürich 東京 😀\n\t", "1,2}]", "50 % > 10 km"]
    texts = (words[i % len(words)] for i in range(99))
    made = caption(CAPTION, texts)
    comma, colon, indent = style
    text = json.dumps(made, indent=indent or None, separators=(comma, colon), ensure_ascii=plain)
    assert case.accepts("caption", case.form.lead + text)
    assert parse_answer(text) is not None
    spoilt = text.replace("60.0", "180.5")
    assert spoilt != text
    assert not case.accepts("caption", case.form.lead + spoilt)


def written(form: AnswerForm, lat: float, lon: float) -> str:
    if form.form == "fixed":
        width = form.decimals + 4
        return f"{form.lead}<answer>{lat:+0{width}.{form.decimals}f}, {lon:+0{width + 1}.{form.decimals}f}</answer>"
    return f"{form.lead}<answer>{lat:.{form.decimals}f}, {lon:.{form.decimals}f}</answer>"


@settings(max_examples=60, deadline=None)
@given(lat=st.floats(-90, 90), lon=st.floats(-180, 180))
def test_the_tokenizers_own_cut_of_an_answer_is_let_through(case: Case, lat: float, lon: float) -> None:
    text = written(case.form, lat, lon)
    assert case.accepts("answer", text)
    if case.form.form == "free":
        assert case.accepts("reason", f"{case.form.lead}Fields, a <b> and 東京: {text}")
        named = f"{case.form.lead}<answer> lat: {lat:.1f} lon: {lon:.2f} </answer>"
        assert case.accepts("answer", named)


@pytest.mark.parametrize(
    "inside",
    ["90.1, 0.0", "-91.0, 0.0", "99.0, 0.0", "0.0, 180.1", "0.0, 181.0", "0.0, 190.0", "0.0, 200.0", "100.0, 0.0",
     "nan, nan", "1e1, 0.0", "1.0 2.0", "1.0, 2.0, 3.0", "1.0,, 2.0", "--1.0, 2.0", "1.0, 2", "01.0, 2.0", "٣.0, 2.0",
     "1.0, 2.00000"],
)  # fmt: skip
def test_anything_else_is_barred(case: Case, inside: str) -> None:
    assert not case.accepts("answer", f"{case.form.lead}<answer>{inside}</answer>")


def test_only_one_tag_can_be_written(case: Case) -> None:
    good = written(case.form, 12.3, 45.6)
    for text in (f"a </answer> {good}", f"a{good}{good}", f"a <answer>b{good}", "a <answer><answer>1.0, 2.0</answer>"):
        assert not case.accepts("reason", case.form.lead + text.replace("  ", " "))


def test_control_tokens_are_never_allowed(case: Case) -> None:
    special = {i for i, token in case.tokenizer.get_added_tokens_decoder().items() if token.special}
    assert special
    grammar = case.grammar
    for state in range(len(grammar.distance)):
        assert special.isdisjoint(grammar.forced(state)[0])
    seen = {int(t) for s in range(0, len(grammar.distance), 7) for t in grammar.choices(s).tokens}
    assert special.isdisjoint(seen)
    assert special.isdisjoint(grammar.choices(grammar.start("reason")).tokens.tolist())


def test_all_of_pockets_answers_and_nothing_else(pocket: Case) -> None:
    """Exhaustive: every reachable state, every token, against the list of all numbers in range."""
    lats = {f"{sign}{v / 10:04.1f}" for v in range(901) for sign in "+-"}
    lons = {f"{sign}{v / 10:05.1f}" for v in range(1801) for sign in "+-"}
    begins = {text[:i] for text in lats for i in range(len(text) + 1)}, {t[:i] for t in lons for i in range(len(t) + 1)}

    def alive(text: str) -> bool:
        if len(text) <= len("<answer>"):
            return "<answer>".startswith(text)
        lat, comma, rest = text[len("<answer>") :].partition(",")
        if not text.startswith("<answer>") or not comma:
            return text.startswith("<answer>") and lat in begins[0]
        if lat not in lats or not rest:
            return lat in lats
        lon, tag, end = rest[1:].partition("<")
        return rest[0] == " " and (lon in lons and "</answer>".startswith(tag + end) if tag else lon in begins[1])

    grammar, words = pocket.grammar, [word.decode(errors="replace") for word in pocket.words]
    texts, waiting = {grammar.start("answer"): ""}, [grammar.start("answer")]
    numbers: set[str] = set()
    while waiting:
        state = waiting.pop()
        choices = grammar.choices(state)
        allowed = dict(zip(choices.tokens.tolist(), choices.nexts.tolist(), strict=True))
        for token, word in enumerate(words):
            assert (token in allowed) == bool(word and alive(texts[state] + word)), (texts[state], word)
        run, end = grammar.forced(state)
        ways = [("".join(words[t] for t in run), end)] if run else []
        for text, target in [*((words[t], n) for t, n in allowed.items()), *ways]:
            if target not in texts:
                texts[target] = texts[state] + text
                waiting.append(target)
    assert len(texts) > 40
    done = [text for state, text in texts.items() if grammar.complete(state)]
    assert len(done) == 1
    assert parse_answer(done[0]) is not None
    # And every number itself, digit by digit.
    for side, known in ((0, lats), (1, lons)):
        numbers = {written(pocket.form, *(float(n), 0.0)[:: 1 - 2 * side]) for n in known}
        assert all(pocket.accepts("answer", text) for text in numbers)


def test_distances_are_kept(case: Case) -> None:
    """Always the nearest way: exactly as many tokens as promised."""
    for mode in MODES:
        least = int(case.grammar.distance[case.grammar.start(mode)])
        assert parse_answer(case.walk(mode, lambda n: 0, least).decode()) is not None


def test_a_tokenizer_of_an_unknown_kind_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(CheckpointError, match="neither byte-level nor SentencePiece"):
        token_bytes(tokenizer, 2)


@pytest.mark.parametrize("fields", [{"form": "roman"}, {"decimals": -1}, {"decimals": 13}, {"lead": "é"}])
def test_answer_forms_that_mean_nothing(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        AnswerForm(**fields)
