"""/v1/embeddings: OpenAI's request and answer, with pictures as content parts."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edgegeo.server.schemas.inputs import EXAMPLE_PART, EXAMPLE_TEXT, Body, Content, Many, ModelName, Part

NO_TOKENS = "token ids are not accepted, since every bundle has a tokenizer of its own; send the text itself"


def _no_tokens(given: Any) -> Any:
    """Refuse OpenAI's token arrays by name; everything else is looked at by the type."""
    first = given[0] if isinstance(given, list) and given else None
    while isinstance(first, list) and first:
        first = first[0]
    if isinstance(first, int):
        raise ValueError(NO_TOKENS)
    return given


class EmbeddingsRequest(Body):
    """Texts and pictures to embed. Fields that OpenAI's clients send beside these are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input": EXAMPLE_TEXT},
                {"input": [EXAMPLE_TEXT, EXAMPLE_PART], "encoding_format": "base64"},
            ]
        }
    )
    input: Annotated[str | Many[str | Part | Content], BeforeValidator(_no_tokens)] = Field(
        description="one text, or a list of texts and content parts"
    )
    model: ModelName = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="must be the model's own dimension where given")
    user: str | None = None


class Embedding(BaseModel):
    """One L2-normalised vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="floats, or base64 of little-endian float32")


class Usage(BaseModel):
    """Tokens of the texts, without prompt and image tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """OpenAI's answer, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "list",
                    "model": "pocket-int8",
                    "data": [{"object": "embedding", "index": 0, "embedding": [0.0613, -0.0287, 0.1042]}],
                    "usage": {"prompt_tokens": 17, "total_tokens": 17},
                }
            ]
        }
    )
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage
