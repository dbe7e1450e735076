"""The published clients of OpenAI and Cohere against a server in a process of its own."""

import base64
from collections.abc import Iterator
from pathlib import Path

import cohere
import httpx
import numpy as np
import openai
import pytest
from live import running

from edgegeo.runtime import Embedder, Generator, Reranker
from edgegeo.runtime.rerank import probability

TEXT = "a green field beside a river"


@pytest.fixture(scope="module")
def address(tiny_bundle: Path, planet_gallery: Path) -> Iterator[str]:
    with running(tiny_bundle, planet_gallery) as (_, started):
        yield started


@pytest.fixture
def ai(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def asked(photo: bytes) -> list[dict[str, object]]:
    uri = "data:image/jpeg;base64," + base64.b64encode(photo).decode()
    words = {"type": "text", "text": "Where was this photo taken?"}
    return [{"role": "user", "content": [words, {"type": "image_url", "image_url": {"url": uri}}]}]


def test_openai_embeddings(ai: openai.OpenAI, tiny_bundle: Path) -> None:
    expected = Embedder.open(tiny_bundle, threads=1).texts([TEXT, "houses"])
    # The client asks for base64 unless told otherwise, and decodes it.
    for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64", "dimensions": expected.shape[1]}):
        answer = ai.embeddings.create(model="tiny", input=[TEXT, "houses"], **form)
        got = [row.embedding for row in answer.data]
        if isinstance(got[0], str):
            got = [np.frombuffer(base64.b64decode(row), "<f4") for row in got]
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert answer.usage.prompt_tokens > 0
    with pytest.raises(openai.UnprocessableEntityError, match="token ids are not accepted"):
        ai.embeddings.create(model="tiny", input=[1, 2, 3])
    with pytest.raises(openai.NotFoundError, match="not being served"):
        ai.embeddings.create(model="text-embedding-3-small", input=TEXT)


def test_openai_chat(ai: openai.OpenAI, tiny_bundle: Path, photo: bytes) -> None:
    expected = Generator.open(tiny_bundle, threads=1).answer(photo)
    answer = ai.chat.completions.create(model="tiny", messages=asked(photo))
    (choice,) = answer.choices
    assert choice.message.content == expected.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == ("length" if expected.cut else "stop")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == expected.prompt_tokens > 0
    assert answer.usage.completion_tokens == len(expected.tokens)
    assert answer.usage.total_tokens == expected.prompt_tokens + len(expected.tokens)


def test_openai_chat_stream(ai: openai.OpenAI, tiny_bundle: Path, photo: bytes) -> None:
    expected = Generator.open(tiny_bundle, threads=1).answer(photo)
    chunks = list(
        ai.chat.completions.create(
            model="tiny", messages=asked(photo), stream=True, stream_options={"include_usage": True}
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == expected.text
    assert chunks[-2].choices[0].finish_reason == ("length" if expected.cut else "stop")
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(expected.tokens)
    # The helper that gathers a stream reads every chunk by its type.
    with ai.chat.completions.stream(model="tiny", messages=asked(photo)) as events:
        assert "".join(event.delta for event in events if event.type == "content.delta") == expected.text


def test_openai_refusals_name_the_field(ai: openai.OpenAI, photo: bytes) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        ai.chat.completions.create(model="tiny", messages=asked(photo), logprobs=True)
    assert refused.value.param == "logprobs"
    assert refused.value.code == "unsupported_parameter"


def test_openai_models(ai: openai.OpenAI) -> None:
    listed = ai.models.list().data
    assert [model.id for model in listed] == ["tiny"]
    assert ai.models.retrieve("tiny") == listed[0]
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("gpt-4o")


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """Cohere's client leaves its own connections open."""
    with httpx.Client() as client:
        yield client


def test_cohere_rerank(address: str, http: httpx.Client, tiny_bundle: Path) -> None:
    documents = ["houses", "a river", "no"]
    expected = probability(Reranker.open(tiny_bundle, threads=1).text_margins(TEXT, documents))
    order = np.argsort(-expected).tolist()
    second = cohere.ClientV2(api_key="none", base_url=address, httpx_client=http)
    answer = second.rerank(model="tiny", query=TEXT, documents=documents, top_n=2)
    assert [result.index for result in answer.results] == order[:2]
    scores = [result.relevance_score for result in answer.results]
    assert scores == pytest.approx(expected[order[:2]].tolist(), abs=1e-5)
    first = cohere.Client(api_key="none", base_url=address, httpx_client=http)
    told = first.rerank(model="tiny", query=TEXT, documents=documents, return_documents=True)
    assert [result.index for result in told.results] == order
    assert [result.document.text for result in told.results if result.document] == [documents[i] for i in order]
    with pytest.raises(cohere.UnprocessableEntityError, match="rank_fields"):
        first.rerank(model="tiny", query=TEXT, documents=[{"text": "a", "title": "b"}], rank_fields=["title"])
