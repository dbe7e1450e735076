"""What is being served, the demo's examples, and errors."""

from typing import Literal

from pydantic import BaseModel, Field

from edgegeo.server.schemas.places import Place


class GalleryState(BaseModel):
    """The gallery being served."""

    name: str
    tiles: int
    map: str | None = Field(None, description="address of a world map to draw under it; null: draw a graticule")


class Ready(BaseModel):
    """What is being served, and on what."""

    status: Literal["ready"] = "ready"
    version: str
    bundle: str
    fingerprint: str
    precision: dict[str, str] = Field(description="component -> precision")
    roles: list[str]
    provider: list[str] = Field(description="execution providers really in use, as onnxruntime reports them")
    gallery: GalleryState | None
    basemap: str = Field(description="address of the coastlines and borders of the world that is located on")
    examples: bool = Field(description="whether /v1/examples has photos with known places")


class ModelCard(BaseModel):
    """OpenAI's model object, with the roles it offers."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    roles: list[str]


class ModelList(BaseModel):
    """OpenAI's list of models: the one bundle served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Example(BaseModel):
    """A photo whose true place is known."""

    index: int
    photo: str
    truth: Place
    description: str


class ExampleList(BaseModel):
    """Photos of the demo planet from test places, which no training has seen."""

    data: list[Example]


class ErrorDetail(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """OpenAI's error envelope."""

    error: ErrorDetail
