"""What inputs are made of: texts and pictures as content parts, the form that OpenAI's and vLLM's clients send."""

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE_URI = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAK0lEQVR42u3NQQEAQAQAMC6m"
    "JOKIeiX4bQWWPRWXXhwTCAQCgUAgEAgEWz4UtwGyCxqxSQAAAABJRU5ErkJggg=="
)
EXAMPLE_TEXT = "A small village by a river, with red roofs and wheat fields."
EXAMPLE_PART: dict[str, Any] = {"type": "image_url", "image_url": {"url": EXAMPLE_URI}}

PICTURE: dict[str, Any] = {"format": "picture-data-uri"}
"""For the OpenAPI document: the form of a picture, which no JSON schema can check."""

T = TypeVar("T")
Many = Annotated[list[T], Field(fail_fast=True)]
"""A list of a request: validation stops at its first wrong item instead of keeping an error for every one."""

Text = Annotated[str, Field(min_length=1, description="UTF-8 text, not empty")]
ModelName = Annotated[
    str | None,
    Field(max_length=200, description="a bundle that GET /v1/models lists; null or empty: the first of them"),
]


class Body(BaseModel):
    """A request of JSON: numbers are numbers and texts are texts, nothing is converted."""

    model_config = ConfigDict(strict=True)


class ImageUrl(Body):
    """A picture as a data URI; http(s) addresses are refused."""

    url: str = Field(description="data:image/jpeg;base64,... (or png, webp)", json_schema_extra=PICTURE)
    detail: Literal["auto"] | None = Field(None, description="how much of a picture is seen is the bundle's own")


class TextPart(Body):
    """OpenAI's text content part."""

    type: Literal["text"]
    text: Text


class ImagePart(Body):
    """OpenAI's image content part."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part: TypeAlias = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Content(Body):
    """vLLM's form of one input or document: content parts, exactly one of them."""

    content: list[Part] = Field(min_length=1, max_length=1)
