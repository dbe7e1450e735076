"""/v1/chat/completions: OpenAI's request, answer and stream, for one question about one picture."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgegeo.server.schemas.inputs import EXAMPLE_PART, Body, Many, ModelName, Part

_QUESTION: dict[str, Any] = {
    "role": "user",
    "content": [{"type": "text", "text": "Where was this photo taken?"}, EXAMPLE_PART],
}
LARGEST_SEED = 2**63 - 1


class ChatMessage(Body):
    """One message. The model answers once: there are no turns, so none of the messages is the assistant's."""

    role: Literal["system", "developer", "user"]
    content: str | Many[Part] = Field(description="text, or parts; one picture in all messages together")
    name: str | None = None


class StreamOptions(Body):
    """OpenAI's options of a stream."""

    include_usage: bool | None = Field(None, description="send a last chunk with the usage")


class ChatRequest(Body):
    """A picture, and how to answer it. A field of OpenAI's that would change the answer and is not here is refused."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {"messages": [_QUESTION]},
                {"messages": [_QUESTION], "stream": True, "stream_options": {"include_usage": True}},
                {"messages": [_QUESTION], "temperature": 0.7, "top_p": 0.95, "seed": 1},
            ]
        },
    )
    messages: list[ChatMessage] = Field(min_length=1, max_length=16)
    model: ModelName = None
    stream: bool | None = Field(False, description="send the answer piece by piece as server-sent events")
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2, description="0 or null: the most likely token each time")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED, description="same seed, same answer; null: another each time")
    max_completion_tokens: int | None = Field(None, ge=1, le=2**20, description="null: the bundle's own limit")
    max_tokens: int | None = Field(None, ge=1, le=2**20, description="the older name of max_completion_tokens")
    n: int | None = Field(1, ge=1, le=32, description="answers; more than one needs a temperature above 0, no stream")


class AnswerMessage(BaseModel):
    """What the model wrote."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


FinishReason = Literal["stop", "length"]


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatUsage(BaseModel):
    """Positions of the prompt, image tokens included, and tokens written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


NOT_READ = (
    "this bundle asks the question it was tuned on, frozen when it was exported; the words of the request were not read"
)


class ChatAnswer(BaseModel):
    """OpenAI's chat completion."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "chatcmpl-0c8f2a",
                    "object": "chat.completion",
                    "created": 1763740800,
                    "model": "pocket-int8",
                    "system_fingerprint": "3f9a1c07",
                    "choices": [
                        {
                            "index": 0,
                            "message": {
                                "role": "assistant",
                                "content": "<answer>48.1, 11.6</answer>",
                                "refusal": None,
                            },
                            "logprobs": None,
                            "finish_reason": "stop",
                        }
                    ],
                    "usage": {"prompt_tokens": 20, "completion_tokens": 14, "total_tokens": 34},
                    "warnings": [NOT_READ],
                }
            ]
        }
    )
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: ChatUsage
    warnings: list[str] = Field(description="what of the request had no influence on the answer")


class Delta(BaseModel):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """One answer's part of a chunk."""

    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatChunk(BaseModel):
    """OpenAI's chunk of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: ChatUsage | None = None
    warnings: list[str] | None = Field(default=None, description="in the first chunk, as in the whole answer")


STREAM_EXAMPLE = (
    'data: {"id":"chatcmpl-0c8f2a","object":"chat.completion.chunk","created":1763740800,"model":"pocket-int8",'
    '"system_fingerprint":"3f9a1c07","choices":[{"index":0,"delta":{"content":"<answer>"},"logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
