"""/v1/chat/completions: the model's answer about one picture, whole or streamed, as OpenAI's clients read it."""

import asyncio
import math
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from edgegeo.errors import ImageError, InputError
from edgegeo.runtime import Decoding, Generated
from edgegeo.server import logs
from edgegeo.server.context import REFUSALS, Context
from edgegeo.server.faults import Refusal, handle, public_text
from edgegeo.server.inputs import Upload, read_picture
from edgegeo.server.json_body import JsonRoute
from edgegeo.server.schemas import (
    NOT_READ,
    STREAM_EXAMPLE,
    AnswerMessage,
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatRequest,
    ChatUsage,
    ChunkChoice,
    Delta,
    FinishReason,
    TextPart,
)

EVENTS = "text/event-stream"
DONE = b"data: [DONE]\n\n"
MARGIN_S = 0.1
"""How long before the deadline a stream says that it is over and ends, instead of being cut."""
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_CHANGES_NOTHING = frozenset(
    ("user", "metadata", "service_tier", "store", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
)
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (), "frequency_penalty": (0,), "function_call": ("none",), "functions": ([],), "logit_bias": ({},),
    "logprobs": (False,), "modalities": (["text"],), "prediction": (), "presence_penalty": (0,),
    "reasoning_effort": ("none",), "response_format": ({"type": "text"},), "stop": ([],), "tool_choice": ("none",),
    "tools": ([],), "top_logprobs": (0,), "verbosity": (), "web_search_options": (),
}  # fmt: skip
"""What OpenAI's clients may send that this server lacks, with the values that ask for nothing; null always may."""
_ANSWERS: dict[str, Any] = {
    "description": "the answer; with `stream` its pieces as server-sent events, the last one [DONE]",
    "content": {EVENTS: {"schema": {"description": "ChatChunk, one an event"}, "example": STREAM_EXAMPLE}},
}


def router(context: Context) -> APIRouter:
    """The route, bound to one server's context."""
    routes = APIRouter(tags=["models"], responses=REFUSALS, route_class=JsonRoute)

    @routes.post(
        "/v1/chat/completions",
        summary="Ask the model about a picture",
        response_model=ChatAnswer,
        responses={200: _ANSWERS},
    )
    async def chat(request: Request, body: ChatRequest) -> Response:
        talk = Talk(context, body, read_question(body))
        if not body.stream:
            await talk.work()
            return JSONResponse(talk.answer().model_dump())
        stream = Stream(talk, request)
        await stream.begin()
        return StreamResponse(stream)

    return routes


@dataclass(frozen=True)
class Question:
    """A chat request, read."""

    picture: Upload
    warnings: list[str]
    decoding: Decoding
    limit: int | None
    count: int


def read_question(body: ChatRequest) -> Question:
    """The picture and how to answer it; Refusal 422 for what this server does not do."""
    for name, value in (body.model_extra or {}).items():
        if value is None or name in _CHANGES_NOTHING or value in _NEUTRAL.get(name, ()):
            continue
        param = name if name.isidentifier() and len(name) < 40 else None
        message = f"{param or 'a field of the request'}: this server does not support it; leave it out"
        raise Refusal(422, "unsupported_parameter", message, param)
    limits = {body.max_completion_tokens, body.max_tokens} - {None}
    if len(limits) > 1:
        message = "max_tokens: it differs from max_completion_tokens, which is the same; send one of them"
        raise Refusal(422, "invalid_input", message, "max_tokens")
    if body.stream_options is not None and not body.stream:
        raise Refusal(422, "invalid_input", "stream_options: send them together with stream", "stream_options")
    count = body.n or 1
    if count > 1 and (body.stream or not body.temperature):
        what = "a stream carries one answer" if body.stream else "without a temperature all answers would be the same"
        raise Refusal(422, "invalid_input", f"n: {what}", "n")
    picture, spoken = _read_messages(body)
    limit = next(iter(limits), None)
    decoding = Decoding(
        temperature=body.temperature or 0.0,
        top_p=body.top_p or 1.0,
        seed=secrets.randbits(31) if body.seed is None else body.seed,
        max_new_tokens=limit,
    )
    return Question(picture, [NOT_READ] if spoken else [], decoding, limit, count)


def _read_messages(body: ChatRequest) -> tuple[Upload, bool]:
    """The one picture of all messages, and whether there were words as well."""
    pictures: list[Upload] = []
    spoken = False
    for i, message in enumerate(body.messages):
        if isinstance(message.content, str):
            if message.content.startswith("data:image/"):
                # Else the letters of its base64 would be taken for words.
                where = f"messages.{i}.content"
                raise Refusal(422, "invalid_input", f"{where}: put a picture into a part of type image_url", where)
            spoken = spoken or bool(message.content.strip())
            continue
        for j, part in enumerate(message.content):
            if isinstance(part, TextPart):
                spoken = spoken or bool(part.text.strip())
            else:
                pictures.append(read_picture(part.image_url.url, f"messages.{i}.content.{j}.image_url.url"))
    if len(pictures) != 1:
        message_ = f"messages: send exactly one picture, in a part of type image_url, not {len(pictures)}"
        raise Refusal(422, "invalid_input", message_, "messages")
    return pictures[0], spoken


@dataclass
class Talk:
    """One question on its way to its answer."""

    context: Context
    body: ChatRequest
    question: Question
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    model: str = ""
    fingerprint: str = ""
    written: list[Generated] = field(default_factory=list)

    async def work(self, on_text: Callable[[str], None] | None = None) -> None:
        """Let the model answer; it stops before its next token when the caller is cancelled."""
        question = self.question
        async with self.context.fleet.use(self.body.model) as serving:
            serving.engine.require("generate")
            self.model, self.fingerprint = serving.engine.name, serving.engine.fingerprint
            try:
                self.written, _ = await serving.answer(question.picture, question.decoding, on_text, question.count)
            except ImageError:
                raise
            except InputError as error:
                if question.limit is None:
                    raise
                text = f"max_completion_tokens: {public_text(error, 'too few for an answer')}"
                raise Refusal(422, "invalid_input", text, "max_completion_tokens") from error

    def answer(self) -> ChatAnswer:
        """The whole answer."""
        choices = [
            ChatChoice(index=i, message=AnswerMessage(content=one.text), finish_reason=_reason(one))
            for i, one in enumerate(self.written)
        ]
        return ChatAnswer(
            id=self.id,
            created=self.created,
            model=self.model,
            system_fingerprint=self.fingerprint,
            choices=choices,
            usage=self.usage(),
            warnings=self.question.warnings,
        )

    def usage(self) -> ChatUsage:
        """What was read and written, over all answers."""
        read, wrote = self.written[0].prompt_tokens, sum(len(one.tokens) for one in self.written)
        return ChatUsage(prompt_tokens=read, completion_tokens=wrote, total_tokens=read + wrote)


def _reason(one: Generated) -> FinishReason:
    return "length" if one.cut else "stop"


class Stream:
    """A talk as server-sent events, begun before the first of them so that a refusal still has its own status."""

    def __init__(self, talk: Talk, request: Request) -> None:
        self._talk = talk
        self._request = request
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._first: str | None = None
        self._task: asyncio.Task[None] | None = None
        trace = logs.current()
        self._deadline = math.inf if trace is None else trace.deadline - MARGIN_S

    async def begin(self) -> None:
        """Wait for the first words; raises what the whole answer would have raised."""
        loop = asyncio.get_running_loop()

        def heard(text: str) -> None:  # on the model thread
            loop.call_soon_threadsafe(self._pieces.put_nowait, text)

        self._task = asyncio.create_task(self._talk.work(heard))
        self._task.add_done_callback(lambda _: self._pieces.put_nowait(None))
        try:
            self._first = await self._pieces.get()
            if self._first is None:
                await self._task
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Stop the model, if it is still writing."""
        if self._task is not None:
            self._task.cancel()

    async def events(self) -> AsyncIterator[bytes]:
        """The chunks; a failure becomes an error event, since the status has been sent."""
        assert self._task is not None, "begin comes first"
        talk, sent, piece = self._talk, "", self._first
        yield self._chunk(Delta(role="assistant", content=""), first=True)
        try:
            while piece is not None:
                sent += piece
                yield self._chunk(Delta(content=piece))
                with anyio.fail_after(max(0.0, self._deadline - anyio.current_time())):
                    piece = await self._pieces.get()
            await self._task
        except Exception as error:
            yield b"data: " + bytes(handle(error, self._request).body) + b"\n\n"
        else:
            (one,) = talk.written
            if rest := one.text.removeprefix(sent):
                yield self._chunk(Delta(content=rest))
            yield self._chunk(Delta(), _reason(one))
            if self._wants_usage:
                yield self._event([], talk.usage())
        yield DONE

    @property
    def _wants_usage(self) -> bool:
        options = self._talk.body.stream_options
        return options is not None and bool(options.include_usage)

    def _chunk(self, delta: Delta, reason: FinishReason | None = None, first: bool = False) -> bytes:
        return self._event([ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=reason)], None, first)

    def _event(self, choices: list[ChunkChoice], usage: ChatUsage | None, first: bool = False) -> bytes:
        talk = self._talk
        chunk = ChatChunk(
            id=talk.id, object="chat.completion.chunk", created=talk.created, model=talk.model,
            system_fingerprint=talk.fingerprint, choices=choices,
        )  # fmt: skip
        # OpenAI's clients tell null from absent: usage is null in every chunk but the last where it was asked for.
        if self._wants_usage:
            chunk.usage = usage
        if first:
            chunk.warnings = talk.question.warnings
        return b"data: " + chunk.model_dump_json(exclude_unset=True).encode() + b"\n\n"


class StreamResponse(StreamingResponse):
    """Ends the generation together with the response, whoever ends that: the client, the deadline or the model."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream.events(), media_type=EVENTS, headers=_HEADERS)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.end()
