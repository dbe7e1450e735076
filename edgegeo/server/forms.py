"""Requests that come as JSON or as an uploaded form: one reader, and their description in the OpenAPI document."""

from typing import Any, NamedTuple, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from edgegeo.server.faults import Refusal
from edgegeo.server.inputs import Upload, check_count, read_part, read_picture, read_text
from edgegeo.server.json_body import read_json
from edgegeo.server.schemas import EmbeddingsRequest, Query, TilesRequest

FILES = ("image", "photo", "file")
"""Form fields that a picture may come in."""
MOST_PARTS = 1000
"""Parts of a form; what a request may hold of them is checked by `check_count`."""
_TILE_FIELDS = ("id", "lat", "lon", "image")
_FILE = {"type": "string", "format": "binary", "description": "the picture's file (JPEG, PNG, WebP)"}

AnyModel = TypeVar("AnyModel", bound=BaseModel)
QueryModel = TypeVar("QueryModel", bound=Query)


class SentTile(NamedTuple):
    """A tile to add, its picture not yet looked at."""

    id: str
    lat: float
    lon: float
    picture: Upload


class Sought(NamedTuple):
    """What a `Query` asks for."""

    text: str | None
    picture: Upload | None
    also: list[Upload]
    """More pictures of the same place."""
    avoid: list[str]


async def read_query(request: Request, schema: type[QueryModel]) -> tuple[QueryModel, Sought]:
    """A `Query` from JSON or from a multipart upload, with its text and its picture, at least one of them.

    Raises Refusal 415 for another content type, 422 for a query without either or with two pictures.
    """
    upload: Upload | None = None
    if _is_form(request):
        fields, upload = await _read_single(request)
        model = _checked(schema, fields)
    else:
        model = _parsed(schema, await request.body())
    if model.image is not None and upload is not None:
        raise Refusal(422, "invalid_input", "send one picture, as an upload or as a data URI", "image")
    if model.text is None and model.image is None and upload is None:
        raise Refusal(422, "invalid_input", "send a text, an image, or both")
    text = None if model.text is None else read_text(model.text, "text")
    picture = upload if model.image is None else read_picture(model.image, "image", bare=True)
    also = [read_picture(one, f"images.{i}", bare=True) for i, one in enumerate(model.images)]
    avoid = [read_text(one, f"avoid.{i}") for i, one in enumerate(model.avoid)]
    if also and picture is None:
        raise Refusal(422, "invalid_input", "images: send the first picture as image", "images")
    return model, Sought(text, picture, also, avoid)


async def read_embeddings(request: Request) -> tuple[EmbeddingsRequest, list[str | Upload]]:
    """The request and its inputs in order, from JSON or from a form that repeats `input`, a text or a file each.

    Raises Refusal 415 for another content type, 422 for an input that can't be read.
    """
    if not _is_form(request):
        body = _parsed(EmbeddingsRequest, await request.body())
        items = [body.input] if isinstance(body.input, str) else body.input
        return body, [read_part(item, f"input.{i}") for i, item in enumerate(items)]
    inputs: list[str | Upload] = []
    async with request.form(max_files=MOST_PARTS, max_fields=MOST_PARTS) as form:
        for i, value in enumerate(form.getlist("input")):
            where = f"input.{i}"
            inputs.append(
                Upload(await value.read(), where) if isinstance(value, UploadFile) else read_part(value, where)
            )
        others = [(name, value) for name, value in form.multi_items() if name != "input"]
        fields = dict(others)
        if len(fields) != len(others) or any(isinstance(value, UploadFile) for value in fields.values()):
            raise Refusal(422, "invalid_input", "send texts and files as input, and every other field once")
    return _checked(EmbeddingsRequest, {**fields, "input": ["-"] * len(inputs)}), inputs


async def read_tiles(request: Request, most: int) -> tuple[TilesRequest, list[SentTile]]:
    """The request, and the tiles to add, from JSON or from a form that repeats id, lat, lon and image.

    Raises Refusal 415 for another content type, 422 for tiles that are incomplete, too many or named twice.
    """
    if _is_form(request):
        async with request.form(max_files=most + 1, max_fields=3 * most + 4) as form:
            body, tiles = await _repeated(form)
    else:
        body = _parsed(TilesRequest, await request.body())
        check_count(len(body.tiles), most, "tiles")
        tiles = [
            SentTile(tile.id, tile.lat, tile.lon, read_picture(tile.image, f"tiles.{i}.image", bare=True))
            for i, tile in enumerate(body.tiles)
        ]
    check_count(len(tiles), most, "tiles")
    seen: set[str] = set()
    for i, tile in enumerate(tiles):
        if tile.id in seen:
            raise Refusal(422, "invalid_input", f"tiles.{i}: an earlier tile has the same id", f"tiles.{i}.id")
        seen.add(read_text(tile.id, f"tiles.{i}.id"))
    return body, tiles


def either(schema: type[BaseModel], form: dict[str, Any] | None = None) -> dict[str, Any]:
    """The request body of the OpenAPI document: JSON, or the same fields as a form with the picture uploaded.

    form: properties of the form where they are not those of the schema.
    """
    described = flat(schema)
    if issubclass(schema, Query):
        described["anyOf"] = [
            {"required": [name], "properties": {name: {"type": "string"}}} for name in ("text", "image")
        ]
    single = {name: one for name, one in described["properties"].items() if name not in ("images", "avoid")}
    fields = form or {**single, "image": _FILE}
    shape: dict[str, Any] = {"type": "object", "properties": fields, "additionalProperties": False}
    if form:
        shape["required"] = [name for name in ("input", *_TILE_FIELDS) if name in form]
    content = {"application/json": {"schema": described}, "multipart/form-data": {"schema": shape}}
    return {"requestBody": {"required": True, "content": content}}


EMBEDDINGS_FORM: dict[str, Any] = {
    "input": {"type": "array", "items": _FILE, "minItems": 1, "description": "files or texts, in the order wanted"},
    "model": {"type": "string", "maxLength": 200},
    "encoding_format": {"enum": ["float", "base64"], "default": "float"},
    "dimensions": {"type": "integer"},
}
TILES_FORM: dict[str, Any] = {
    "id": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 200}, "minItems": 1},
    "lat": {"type": "array", "items": {"type": "number", "minimum": -90, "maximum": 90}, "minItems": 1},
    "lon": {"type": "array", "items": {"type": "number", "minimum": -180, "maximum": 180}, "minItems": 1},
    "image": {"type": "array", "items": _FILE, "minItems": 1, "description": "one file a tile, in the same order"},
    "model": {"type": "string", "maxLength": 200},
    "replace": {"type": "boolean"},
}


def _is_form(request: Request) -> bool:
    """Whether the body is a form; Refusal 415 where it is neither that nor JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/json"):
        raise Refusal(415, "unsupported_media_type", "send application/json or multipart/form-data")
    return kind == "multipart/form-data"


def _parsed(schema: type[AnyModel], body: bytes) -> AnyModel:
    try:
        return schema.model_validate(read_json(body))
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None


def _checked(schema: type[AnyModel], fields: dict[str, Any]) -> AnyModel:
    try:
        return schema.model_validate(fields, strict=False)  # a form holds texts only
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None


async def _read_single(request: Request) -> tuple[dict[str, Any], Upload | None]:
    fields: dict[str, Any] = {}
    upload = None
    async with request.form(max_files=1, max_fields=16) as form:
        for name, value in form.multi_items():
            if name in fields:
                raise Refusal(422, "invalid_input", "a form field was sent twice")
            if not isinstance(value, UploadFile):
                fields[name] = value
            elif name in FILES:
                upload = Upload(await value.read(), name)
            else:
                raise Refusal(422, "invalid_input", f"send the picture in one of the fields {', '.join(FILES)}")
    return fields, upload


async def _repeated(form: FormData) -> tuple[TilesRequest, list[SentTile]]:
    """The n-th id, lat, lon and image make the n-th tile."""
    single = {name: form[name] for name in ("model", "replace") if name in form}
    if not set(form) <= {*_TILE_FIELDS, *single} or any(len(form.getlist(name)) > 1 for name in single):
        message = f"send {', '.join(_TILE_FIELDS)} once a tile, model and replace once or not at all"
        raise Refusal(422, "invalid_input", message)
    columns = [form.getlist(name) for name in _TILE_FIELDS]
    if len({len(column) for column in columns}) != 1:
        raise Refusal(422, "invalid_input", f"send {', '.join(_TILE_FIELDS)} equally often, once a tile")
    rows: list[dict[str, Any]] = []
    uploads: list[Upload] = []
    for i, (name, lat, lon, image) in enumerate(zip(*columns, strict=True)):
        if not isinstance(image, UploadFile):
            raise Refusal(422, "invalid_input", "send every image as a file", f"tiles.{i}.image")
        uploads.append(Upload(await image.read(), f"tiles.{i}.image"))
        rows.append({"id": name, "lat": lat, "lon": lon, "image": ""})
    body = _checked(TilesRequest, {"tiles": rows, **single})
    tiles = [SentTile(t.id, t.lat, t.lon, upload) for t, upload in zip(body.tiles, uploads, strict=True)]
    return body, tiles


def flat(model: type[BaseModel]) -> dict[str, Any]:
    """Its JSON schema with definitions put where they are used, so that it stands alone in a larger document."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def filled(node: Any) -> Any:
        if isinstance(node, list):
            return [filled(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return filled(definitions[node["$ref"].rsplit("/", 1)[1]])
        return {name: filled(one) for name, one in node.items()}

    out: dict[str, Any] = filled(schema)
    return out
