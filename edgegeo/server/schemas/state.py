"""What is being served, the demo's examples, and errors."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgegeo.server.schemas.places import Place


class GalleryState(BaseModel):
    """The gallery being served."""

    name: str
    tiles: int


class Ready(BaseModel):
    """What is being served, and on what."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "version": "0.1.0",
                    "bundle": "pocket-int8",
                    "fingerprint": "3f9a1c07",
                    "precision": {"trunk": "int8", "vision": "int8", "head": "int8"},
                    "roles": ["embed", "rerank", "generate"],
                    "provider": ["CPUExecutionProvider"],
                    "gallery": {"name": "planet-pocket-int8", "tiles": 1000},
                    "map": "/v1/map.png",
                    "basemap": "/v1/map.json",
                    "examples": True,
                }
            ]
        }
    )

    status: Literal["ready"] = "ready"
    version: str
    bundle: str
    fingerprint: str
    precision: dict[str, str] = Field(description="component -> precision")
    roles: list[str]
    provider: list[str] = Field(description="execution providers really in use, as onnxruntime reports them")
    gallery: GalleryState | None
    map: str | None = Field(description="address of a picture of the world, for under the basemap; null: none")
    basemap: str = Field(description="address of the coastlines and borders of the world that is located on")
    examples: bool = Field(description="whether /v1/examples has photos with known places")


class ModelCard(BaseModel):
    """OpenAI's model object, with the roles it offers."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "pocket-int8",
                    "object": "model",
                    "created": 0,
                    "owned_by": "smolvlm",
                    "roles": ["embed", "rerank", "generate"],
                    "loaded": True,
                }
            ]
        }
    )

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = Field(description="the model's family")
    roles: list[str]
    loaded: bool = Field(description="whether it is open; one that is not is opened when it is first asked for")


class ModelList(BaseModel):
    """OpenAI's list of models: the bundles being served, the default first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "list",
                    "data": [
                        {
                            "id": "pocket-int8",
                            "object": "model",
                            "created": 0,
                            "owned_by": "smolvlm",
                            "roles": ["embed", "rerank", "generate"],
                            "loaded": True,
                        }
                    ],
                }
            ]
        }
    )

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

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "data": [
                        {
                            "index": 0,
                            "photo": "/v1/examples/0/photo.jpg",
                            "truth": {"lat": 48.1, "lon": 11.6},
                            "description": "A small village by a river, with red roofs.",
                        }
                    ]
                }
            ]
        }
    )

    data: list[Example]


class ErrorDetail(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """OpenAI's error envelope."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "message": "text: the text is empty",
                        "type": "invalid_request_error",
                        "param": "text",
                        "code": "empty_text",
                    }
                }
            ]
        }
    )

    error: ErrorDetail
