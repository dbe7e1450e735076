"""Embedding, re-ranking and generation against the same graphs run the plain way."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegeo.bundle import Roles, open_bundle
from edgegeo.errors import BundleError, DeviceError, ImageError, InputError
from edgegeo.runtime import Embedder, Generator, Model, Reranker
from edgegeo.runtime import embed as embed_module
from edgegeo.runtime import model as model_module
from edgegeo.runtime import sessions as sessions_module
from edgegeo.runtime.pictures import ImageTokens
from edgegeo.runtime.rerank import logsumexp, probability
from edgegeo.runtime.tokens import fill
from edgegeo.runtime.trunk import TrunkInput

TEXTS = ["a green field", "houses", "a river with red roofs beside a green field and houses", "no"]


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(5)
    return [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return Model.open(tiny_bundle, threads=2)


@pytest.fixture(scope="module")
def slq(slq_tiny_bundle: Path) -> Model:
    return Model.open(slq_tiny_bundle, threads=1)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_text_batches_do_not_change_embeddings(model: Model, batch: int) -> None:
    embedder = Embedder(model)
    found = embedder.texts(TEXTS, batch=batch)
    assert found.shape == (4, embedder.dim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, np.concatenate([embedder.texts([t]) for t in TEXTS]), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_image_batches_do_not_change_embeddings(model: Model, batch: int) -> None:
    embedder, images = Embedder(model), pictures(3)
    found = embedder.images(images, batch=batch)
    np.testing.assert_allclose(found, np.concatenate([embedder.images([i]) for i in images]), atol=1e-5)


def test_splitting_a_batch_changes_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, images = Embedder(model), pictures(5)
    texts, prepared = TEXTS * 3, model.prepare(images)
    whole = embedder.texts(texts), [one.rows for one in model.features("vision", prepared)]
    monkeypatch.setattr(embed_module, "TOKENS_PER_RUN", 40)
    monkeypatch.setattr(model_module, "PIXELS_PER_RUN", 2 * 32 * 32)
    np.testing.assert_allclose(embedder.texts(texts), whole[0], atol=1e-5)
    np.testing.assert_allclose([one.rows for one in model.features("vision", prepared)], whole[1], atol=1e-6)


def test_small_graphs_take_one_thread_unless_told(tiny_bundle: Path) -> None:
    def threads(model: Model, component: str) -> int:
        return int(model.session(component).get_session_options().intra_op_num_threads)

    told, untold = Model.open(tiny_bundle, threads=2), Model.open(tiny_bundle)
    assert [threads(told, name) for name in ("vision", "trunk", "head")] == [2, 2, 2]
    assert [threads(untold, name) for name in ("vision", "trunk", "head")] == [1, 1, 1]


def test_a_large_graph_takes_all_cores_unless_told(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(tiny_bundle)
    sizes = {name: bundle.graph_bytes(name) for name in ("vision", "trunk", "head")}
    assert sizes["trunk"] == sum(file.stat().st_size for file in (tiny_bundle / "onnx").glob("decoder_model_merged.*"))
    small, middle, large = sorted(sizes, key=sizes.__getitem__)
    monkeypatch.setattr(sessions_module, "SMALL_GRAPH", sizes[middle])
    assert [Model(bundle, cores=6).threads_of(name) for name in (small, middle, large)] == [1, 1, 6]
    assert {Model(bundle, threads=3, cores=6).threads_of(name) for name in sizes} == {3}
    with pytest.raises(DeviceError, match="threads must be at least 1, not 0"):
        Model(bundle, threads=0).session("trunk")


@pytest.mark.parametrize(("told", "cores", "most"), [(None, 3, 3), (None, 1, 1), (1, None, 1), (2, None, 1)])
def test_small_towers_run_side_by_side(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, told: int | None, cores: int | None, most: int
) -> None:
    """Several runs at once only where cores are left to the runtime; the numbers are those of one after the other."""
    monkeypatch.setattr(model_module, "PIXELS_PER_RUN", 4 * 32 * 32)
    one = Model(open_bundle(tiny_bundle), threads=1)
    prepared = one.prepare(pictures(7))
    model = Model(open_bundle(tiny_bundle), threads=told, cores=cores)
    watched = Busy(model.session("vision"), most)
    model.adopt("vision", watched)
    found = model.features("vision", prepared)
    for mine, its in zip(found, one.features("vision", prepared), strict=True):
        np.testing.assert_array_equal(mine.rows, its.rows)
    assert watched.most == most


@pytest.mark.parametrize(("told", "most"), [(None, 3), (1, 1)])
def test_prompts_of_small_decoders_are_read_side_by_side(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, told: int | None, most: int
) -> None:
    whole = Embedder(Model(open_bundle(tiny_bundle), threads=1)).texts(TEXTS * 2)
    monkeypatch.setattr(model_module, "_SMALL_POSITIONS", 1)
    model = Model(open_bundle(tiny_bundle), threads=told, cores=3)
    watched = Busy(model.session("trunk"), most)
    model.adopt("trunk", watched)
    np.testing.assert_allclose(Embedder(model).texts(TEXTS * 2), whole, atol=1e-6)
    assert watched.most == most


class Busy:
    """A session that says how many of its runs went on at once; the first `met` of them wait for each other."""

    def __init__(self, session: Any, met: int) -> None:
        self._session, self._lock, self._now, self.most = session, threading.Lock(), 0, 0
        self._met, self._left = threading.Barrier(met), met

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *words: Any) -> Any:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            first, self._left = self._left > 0, self._left - 1
        if first:
            self._met.wait(timeout=60)
        try:
            return self._session.run(*words)
        finally:
            with self._lock:
                self._now -= 1


def test_eos_pooling_is_the_last_hidden_state(model: Model) -> None:
    embedder = Embedder(model)
    ids = model.tokenizer.encode(TEXTS[0])
    prompt = fill(embedder.role.text_prompt, [ids])
    fed = model.assemble([prompt])
    assert fed.lengths[0] == len(ids) + 2
    last = model.trunk("trunk").hidden(fed, fed.lengths[:, None] - 1)[0, 0]
    np.testing.assert_allclose(embedder.texts(TEXTS[:1])[0], last / np.linalg.norm(last), atol=1e-6)


def test_latent_queries_are_appended_and_averaged(slq: Model) -> None:
    embedder = Embedder(slq)
    queries = np.load(slq.bundle.path / "queries.npy")
    prompt = fill(embedder.role.text_prompt, [slq.tokenizer.encode(TEXTS[0])])
    fed = slq.assemble([prompt])
    whole = TrunkInput(np.concatenate([fed.embeds, queries[None]], axis=1), fed.lengths + len(queries))
    at = np.arange(fed.lengths[0], whole.lengths[0])[None]
    mean = slq.trunk("trunk").hidden(whole, at)[0].mean(axis=0)
    found = embedder.texts(TEXTS)
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), atol=1e-5)
    assert embedder.images(pictures(2)).shape == (2, embedder.dim)


def test_nothing_to_embed(model: Model) -> None:
    assert Embedder(model).texts([]).shape == (0, 32)
    assert Embedder(model).images([]).shape == (0, 32)


def test_text_guards(model: Model) -> None:
    with pytest.raises(InputError, match="empty"):
        Embedder(model).texts(["a field", " "])
    with pytest.raises(InputError, match="reads up to 64"):
        Embedder(model).texts(["x " * 50])
    with pytest.raises(InputError, match="characters"):
        Embedder(model).texts(["x" * 100_000])


def test_an_unusable_picture_in_a_batch(model: Model) -> None:
    with pytest.raises(ImageError, match="not a JPEG"):
        Embedder(model).images([*pictures(2), b"junk"])


def plain_margin(model: Model, prompt: list, features: list[list[ImageTokens]]) -> float:
    role = model.bundle.manifest.roles.rerank
    assert role is not None
    fed = model.assemble([prompt], features)
    hidden = model.trunk("trunk").hidden(fed, fed.lengths[:, None] - 1)
    logits = model.session("head").run(None, {"hidden_states": hidden})[0][0, 0].astype(np.float64)
    yes, no = np.exp(logits[list(role.yes_ids)]).sum(), np.exp(logits[list(role.no_ids)]).sum()
    return float(np.log(yes) - np.log(no))


def test_rerank_equals_the_full_head_on_whole_prompts(model: Model) -> None:
    reranker, images = Reranker(model), pictures(4)
    features = [model.features("vision", model.prepare([image])) for image in images]
    by_text = reranker.margins("a green field", images[1:])
    by_image = reranker.margins(images[0].copy(), images[1:], batch=2)
    ids = model.tokenizer.encode("a green field")
    for row, candidate in enumerate(features[1:]):
        text = plain_margin(model, fill(reranker.role.text_prompt, [ids]), [candidate])
        pair = plain_margin(model, fill(reranker.role.image_prompt), [features[0], candidate])
        assert by_text[row] == pytest.approx(text, abs=2e-3)  # the table in the bundle is float16, the rows float32
        assert by_image[row] == pytest.approx(pair, abs=2e-3)
    scores = reranker.score("a green field", images[1:])
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-by_text)), atol=1e-12)
    assert reranker.score("a green field", []).shape == (0,)


def test_text_candidates_equal_the_full_head_on_whole_prompts(model: Model) -> None:
    reranker, role = Reranker(model), Reranker(model).role
    asked, *texts = [model.tokenizer.encode(text) for text in TEXTS[:3]]
    (seen,) = model.features("vision", model.prepare(pictures(1)))
    of_text, of_picture = reranker.text_margins(TEXTS[0], TEXTS[1:3]), reranker.text_margins(seen, TEXTS[1:3])
    before, _, between, _, after = role.text_prompt
    for row, ids in enumerate(texts):
        words = [*(before.ids or ()), *asked, *(between.ids or ()), *ids, *(after.ids or ())]
        assert of_text[row] == pytest.approx(plain_margin(model, [np.array(words)], []), abs=2e-3)
        turned = plain_margin(model, fill(role.text_prompt, [ids]), [[seen]])
        assert of_picture[row] == pytest.approx(turned, abs=2e-3)
    with pytest.raises(InputError, match="reads up to"):
        reranker.text_margins(TEXTS[0], ["q w " * 300])
    with pytest.raises(InputError, match="empty"):
        reranker.text_margins(seen, [" "])


def test_rerank_refuses_a_text_without_room(model: Model) -> None:
    assert Reranker(model).max_query_tokens < 256
    with pytest.raises(InputError, match="reads up to"):
        Reranker(model).score("q w " * 300, pictures(1))


def test_probability_and_logsumexp_do_not_overflow() -> None:
    np.testing.assert_array_equal(probability(np.array([-1e9, 0.0, 1e9])), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(logsumexp(np.array([[1e4, 1e4]], np.float32)), 1e4 + np.log(2))


def naive_tokens(model: Model, image: Image.Image) -> tuple[list[int], float]:
    """Greedy decoding that computes everything again for each token."""
    role = model.bundle.manifest.roles.generate
    assert role is not None
    embeds = model.assemble([fill(role.prompt)], [model.features("vision", model.prepare([image]))]).embeds
    tokens: list[int] = []
    logprob = 0.0
    for _ in range(role.max_new_tokens):
        length = embeds.shape[1]
        fed = TrunkInput(embeds, np.array([length]))
        hidden = model.trunk("trunk").hidden(fed, np.array([[length - 1]]))
        logits = model.session("head").run(None, {"hidden_states": hidden})[0][0, 0].astype(np.float64)
        token = int(logits.argmax())
        logprob += logits[token] - np.log(np.exp(logits).sum())
        if token in role.stop_ids:
            break
        tokens.append(token)
        embeds = np.concatenate([embeds, model.rows(np.array([[token]]))], axis=1)
    return tokens, logprob


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_decoding_with_the_cache_equals_decoding_without(model: Model, batch: int) -> None:
    images = pictures(5)
    for image, answer in zip(images, Generator(model).answers(images, batch=batch), strict=True):
        tokens, logprob = naive_tokens(model, image)
        assert list(answer.tokens) == tokens
        assert answer.logprob == pytest.approx(logprob, abs=1e-3)
        assert answer.text == model.tokenizer.decode(tokens)


def test_rows_stop_one_by_one(model: Model) -> None:
    images = pictures(6)
    free = [naive_tokens(model, image)[0] for image in images]
    role = model.bundle.manifest.roles.generate
    assert role is not None
    generator = Generator(model)
    generator.role = replace(role, stop_ids=(free[0][2], free[1][4]))
    answers = generator.answers(images)
    for tokens, answer in zip(free, answers, strict=True):
        stops = [i for i, token in enumerate(tokens) if token in generator.role.stop_ids]
        assert list(answer.tokens) == tokens[: stops[0] if stops else None]
    assert len({len(a.tokens) for a in answers}) > 1


def test_roles_that_are_absent_say_so(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    empty = Model(replace(bundle, manifest=replace(bundle.manifest, roles=Roles())))
    for kind, words in ((Embedder, "no embedding"), (Reranker, "no re-ranking"), (Generator, "no GPS generation")):
        with pytest.raises(BundleError, match=words):
            kind(empty)


def test_sessions_are_shared_and_opened_once(tiny_bundle: Path) -> None:
    model = Model.open(tiny_bundle, threads=1)
    found = []
    workers = [threading.Thread(target=lambda: found.append(model.session("trunk"))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len({id(session) for session in found}) == 1
    assert Embedder.open(model).model is Generator.open(model).model


def test_many_threads_get_the_right_answers(model: Model) -> None:
    images = pictures(8)
    generator, embedder = Generator(model), Embedder(model)
    alone = [(generator.answer(i).tokens, embedder.images([i])) for i in images]
    found: dict[int, tuple] = {}

    def work(index: int) -> None:
        found[index] = (generator.answer(images[index]).tokens, embedder.images([images[index]]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index, (tokens, vector) in enumerate(alone):
        assert found[index][0] == tokens
        np.testing.assert_allclose(found[index][1], vector, atol=1e-6)
