"""The OpenAPI document: its examples work as they stand, and the server keeps to it whatever is sent."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chromium
import pytest
from fastapi.testclient import TestClient
from live import running
from pydantic import BaseModel

from edgegeo.runtime import Gallery
from edgegeo.server import schemas
from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine
from edgegeo.server.schemas import EXAMPLE_URI
from edgegeo.server.settings import ServerSettings

KEY = "0123456789abcdef-admin"
ADMIN = {"x-admin-key": KEY}
VERBS = ("get", "post", "delete")
PLACES = {"{model}": "tiny", "{tile}": "test-00001", "{index}": "0"}
UNSAID = "positive_data_acceptance,unsupported_method"
"""Checks left out: no schema can say that a text needs more than blanks, or that a tile has to be in the gallery; and
methods that no operation has are tried here with the administrator's key, without which the guard answers first."""


@pytest.fixture
def gallery(planet_gallery: Path, tmp_path: Path) -> Path:
    """A copy to write to."""
    return Path(shutil.copytree(planet_gallery, tmp_path / "planet-tiny"))


@pytest.fixture
def admin(settings: ServerSettings, gallery: Path) -> Iterator[TestClient]:
    """A server that lets its gallery be changed."""
    own = replace(settings, gallery=gallery, admin_key=KEY)
    with TestClient(create_app(Engine.open(own), own), raise_server_exceptions=False) as started:
        yield started


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for address, item in document["paths"].items():
        for verb in VERBS:
            if verb in item:
                yield verb, address, item[verb]


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return found


def test_every_example_of_a_request_is_answered(admin: TestClient) -> None:
    document = admin.get("/openapi.json").json()
    tried = set()
    for verb, address, said in operations(document):
        if "requestBody" not in said:
            continue
        examples = resolved(said["requestBody"]["content"]["application/json"]["schema"], document).get("examples")
        assert examples, f"{address} shows no example"
        for example in examples:
            headers = {**ADMIN, "content-type": "application/json"}
            answer = admin.request(verb, address, content=json.dumps(example), headers=headers)
            assert answer.status_code == 200, (address, example, answer.text)
            tried.add(address)
    assert tried == {
        "/v1/admin/reload", "/v1/chat/completions", "/v1/embeddings", "/v1/gallery/tiles", "/v1/locate", "/v1/rerank",
        "/v1/search", "/v2/rerank",
    }  # fmt: skip
    assert EXAMPLE_URI in json.dumps(document)


def test_every_operation_answers_as_it_says(admin: TestClient) -> None:
    document = admin.get("/openapi.json").json()
    for verb, address, said in operations(document):
        if "requestBody" in said:
            continue
        for name, value in PLACES.items():
            address = address.replace(name, value)
        answer = admin.request(verb, address, headers=ADMIN)
        assert answer.status_code == 200, (address, answer.text)
        assert answer.headers["content-type"].split(";")[0] in said["responses"]["200"]["content"]


def test_other_methods_are_told_the_right_ones(admin: TestClient) -> None:
    document = admin.get("/openapi.json").json()
    for address, item in document["paths"].items():
        said = {verb.upper() for verb in VERBS if verb in item}
        for name, value in PLACES.items():
            address = address.replace(name, value)
        for verb in ("PUT", "PATCH", "POST", "DELETE"):
            if verb not in said:
                answer = admin.request(verb, address, headers=ADMIN)
                assert answer.status_code == 405, (verb, address)
                assert set(answer.headers["allow"].split(", ")) == said | ({"HEAD"} if "GET" in said else set())
                assert answer.json()["error"]["code"] == "method_not_allowed"


def test_answers_show_examples_of_their_own_form(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    shown = 0
    for verb, address, said in operations(document):
        if not address.startswith(("/v1/", "/v2/")):
            continue
        for kind, content in said["responses"]["200"].get("content", {}).items():
            schema = resolved(content.get("schema", {}), document)
            if kind not in ("application/json", "application/geo+json") or "properties" not in schema:
                continue
            assert schema.get("examples"), f"{verb} {address} shows no example of its answer"
            model = getattr(schemas, schema["title"])
            assert issubclass(model, BaseModel)
            for example in schema["examples"]:
                assert set(example) <= set(model.model_fields)
                model.model_validate_json(json.dumps(example))
                shown += 1
    assert shown >= 10
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_references_lead_somewhere(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    def check(node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                check(one)
        elif isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                assert node["$ref"].rsplit("/", 1)[1] in document["components"]["schemas"], node
            for one in node.values():
                check(one)

    check(document)


@pytest.fixture(scope="module")
def address(tiny_bundle: Path, planet_gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a process of its own that lets its gallery be changed; it still runs at the end."""
    own = Path(shutil.copytree(planet_gallery, tmp_path_factory.mktemp("galleries") / "planet-tiny"))
    with running(tiny_bundle, own, admin_key=KEY, max_inputs=20) as (process, started):
        yield started
        assert process.poll() is None
    assert len(Gallery.open(own)) > 0


@pytest.mark.skipif(chromium.BINARY is None, reason="Chromium is not installed")
def test_the_page_shows_every_operation_and_sends_examples(address: str, client: TestClient, tmp_path: Path) -> None:
    document = client.get("/openapi.json").json()
    buttons = "[...document.querySelectorAll('#operations button')]"
    told = "[...document.querySelectorAll('#operations [aria-live] p')].map((p) => p.textContent)"
    with chromium.Chromium(tmp_path) as page:
        page.open(f"{address}/docs")
        page.until("document.body && document.body.dataset.state === 'done'")
        shown = page.run("[...document.querySelectorAll('.verb')].map((v) => v.parentNode.textContent)")
        for verb, path, said in operations(document):
            assert any(line.startswith(f"{verb.upper()}{path}") and said["summary"] in line for line in shown), path
        count = page.run(f"{buttons}.length")
        assert count > 10
        page.run(f"{buttons}.forEach((button) => button.click())")
        page.until(f"{told}.length === {count}")
        # Those that change something are refused: the page knows no administrator's key.
        assert page.run(f"{told}.filter((text) => text === 'Status 403').length") == 3
        assert page.run(f"{told}.filter((text) => text === 'Status 200').length") == count - 3
        assert all(url.startswith((address, "data:")) for url in page.requests)
        assert not [line for line in page.complaints if "403" not in line]


def fuzzed(address: str, folder: Path, phases: str, *more: str) -> str:
    """What schemathesis says of a server; the test fails with it if it finds anything."""
    settings = folder / "schemathesis.toml"
    settings.write_text(f'[auth.openapi.administrator]\napi_key = "{KEY}"\n')
    done = subprocess.run(
        [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
            "--config-file", str(settings), "run", f"{address}/openapi.json", "--phases", phases,
            "--seed", "1", "--exclude-checks", UNSAID, "--no-color", *more,
        ],
        capture_output=True, text=True, cwd=folder, timeout=1500,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_the_server_keeps_to_its_document(address: str, tmp_path: Path) -> None:
    few = "^/(v2/rerank|v1/(search|gallery/tiles|models/.*|admin/.*))$"
    said = fuzzed(address, tmp_path, "examples,coverage", "--include-path-regex", few)
    assert "5 selected / " in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_server_keeps_to_its_whole_document(address: str, tmp_path: Path) -> None:
    said = fuzzed(address, tmp_path, "examples,coverage,fuzzing,stateful", "--max-examples", "100")
    assert "20 selected / 20 total" in said
