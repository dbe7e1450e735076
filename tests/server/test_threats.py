"""The table of threats, a test a row: each fails where its defence is taken away.

| threat | test |
|---|---|
| requests to other machines through picture addresses | test_no_address_is_ever_fetched |
| image bombs, odd sizes | test_a_picture_is_judged_by_its_header_and_opened_away_from_the_event_loop |
| errors that tell about the machine | test_what_goes_wrong_inside_stays_inside |
| templates that run code | test_words_are_never_a_template |
| pickles | test_nothing_is_ever_unpickled |
| files that a graph names outside its bundle | test_a_graph_reads_only_files_of_its_bundle |
| damaged indexes and plans | test_a_flipped_bit_is_found_before_anything_is_parsed |
| keys and overload | test_strangers_need_a_key_and_crowds_have_to_wait |

Requests of every kind against one live server, thousands of hostile ones among them, are in test_fuzz_*.py.
"""

import ast
import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from fastapi.testclient import TestClient
from fuzz_pictures import ihdr, patched_jpeg, png
from PIL import Image
from sealing import seal
from test_bad_input import refused, send
from test_guard import code, started

import edgegeo
from edgegeo.bundle import MANIFEST_NAME, open_bundle
from edgegeo.errors import BundleError, EdgegeoError, GalleryError, ServerError
from edgegeo.runtime import Embedder, Gallery, Model
from edgegeo.server.engine import Engine
from edgegeo.server.settings import ServerSettings

PACKAGE = Path(edgegeo.__file__).parent
CLIENTS = {"requests", "httpx", "aiohttp", "urllib3", "http", "ftplib", "smtplib", "telnetlib", "urllib.request"}
ROUTES = ("embeddings", "rerank", "search", "locate")


def imports(*rooms: str) -> dict[str, set[str]]:
    """Every module of these rooms, with what it imports anywhere in it."""
    found = {}
    for file in (file for room in rooms for file in (PACKAGE / room).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[str(file.relative_to(PACKAGE))] = names
    return found


def test_no_address_is_ever_fetched(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **_: reached.append(asked))
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: reached.append(address))
    addresses = ["http://169.254.169.254/latest/meta-data", "https://x.example/a.png", "ftp://x/y", "//x.example/a.png"]
    addresses += ["file:///etc/passwd", "/etc/passwd", "HTTP://X/", " http://x/", "gopher://x", "data:http://x/,x"]
    for address in addresses:
        for route in ROUTES:
            assert send(client, route, address).status_code in (415, 422)
        part = {"type": "image_url", "image_url": {"url": address}}
        chat = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [part]}]})
        assert chat.status_code in (415, 422)
    assert reached == []
    # And nothing that serves could, had it been told to: there is no client in it.
    for module, names in imports("server", "runtime").items():
        assert not {name for name in names if name in CLIENTS or name.split(".")[0] in CLIENTS - {"http"}}, module


def test_a_picture_is_judged_by_its_header_and_opened_away_from_the_event_loop(
    client: TestClient, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    load = Image.open

    def noted(*given: Any, **how: Any) -> Any:
        opened.append(threading.current_thread().name)
        return load(*given, **how)

    monkeypatch.setattr("edgegeo.runtime.image.Image.open", noted)
    frames = [Image.new("RGB", (16, 16), (100 * i, 0, 0)) for i in range(3)]
    animated, gif = io.BytesIO(), io.BytesIO()
    frames[0].save(animated, "WEBP", save_all=True, append_images=frames[1:])
    frames[0].save(gif, "GIF")
    refusals = {
        "too many pixels": patched_jpeg(b"\xff\xff\xff\xff"), "bomb": png(ihdr(30_000, 30_000)),
        "1 x 1": png(ihdr(1, 1)), "a strip": png(ihdr(4_000, 9)), "frames": animated.getvalue(),
        "no such format": gif.getvalue(), "nothing": b"",
    }  # fmt: skip
    for name, data in refusals.items():
        answer = client.post("/v1/locate", files={"image": ("p", data)})
        wanted = (415, "not_an_image") if name in ("no such format", "nothing") else (422, "unusable_image")
        refused(answer, *wanted)
    assert opened == [], "a picture was opened that its header should have kept out"
    event_loop = client.portal.call(threading.current_thread).name  # type: ignore[union-attr]
    assert client.post("/v1/locate", files={"image": ("p", photo)}).status_code == 200
    assert len(opened) == 1
    assert event_loop not in opened


def test_what_goes_wrong_inside_stays_inside(
    client: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "/srv/keys/secret.onnx at 0x7fffdeadbeef"
    errors = [RuntimeError(secret), OSError(2, secret), KeyError(secret), BundleError(secret), GalleryError(secret)]
    errors += [EdgegeoError(secret), MemoryError(secret), UnicodeDecodeError("utf-8", secret.encode(), 0, 1, secret)]
    for error in errors:

        def fail(*_: Any, error: Exception = error, **__: Any) -> NoReturn:
            raise error

        caplog.clear()
        with monkeypatch.context() as patch:
            patch.setattr(engine, "locate", fail)
            answer = client.post("/v1/locate", json={"text": "x"})
        assert answer.status_code in (422, 500, 503)
        assert set(answer.json()) == {"error"}
        for private in ("srv", "secret", "0x7f", "Error", "Traceback"):
            assert private not in answer.text + str(answer.headers), error
    # Nor does it come back what was sent.
    for sent in ("/v1/<script>alert(1)</script>", "/v1/examples/<b>/photo.jpg", "/v1/gallery/<b>/thumbnail"):
        assert "<" not in client.get(sent).text


def test_words_are_never_a_template(client: TestClient, tiny_bundle: Path) -> None:
    # Prompts were compiled to token ids at export; no template engine is imported, and none is needed.
    for module, names in imports("server", "runtime").items():
        assert not {name for name in names if name.split(".")[0] in ("jinja2", "mako", "chevron")}, module
        assert not names & {"string.Template", "importlib.util", "code", "codeop"}, module
    plain = client.post("/v1/embeddings", json={"input": "a river"}).json()["data"][0]["embedding"]
    for text in ("{{ 7 * 7 }} a river", "{% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}", "${7*7}"):
        answer = client.post("/v1/embeddings", json={"input": text})
        assert answer.status_code == 200
        assert answer.json()["data"][0]["embedding"] != plain
    # A control token that someone types is letters: the marks of the prompt can't be forged.
    tokenizer = Model.open(tiny_bundle, 1).tokenizer
    for mark in ("<image>", "<eos>", "<bos>", "<pad>"):
        control = tokenizer._rust.token_to_id(mark)
        assert control is not None
        assert control not in tokenizer.encode(f"a {mark} river")


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def resealed(root: Path, name: str) -> None:
    """Make the manifest agree with a file that was replaced, as someone would who makes a bundle to harm."""
    data = (root / name).read_bytes()
    manifest = json.loads((root / MANIFEST_NAME).read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    seal(root, manifest)


@pytest.mark.parametrize("name", ["head_rows.npy", "embed_tokens.npy", "golden.npz", "tokenizer.json"])
def test_nothing_is_ever_unpickled(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "was run"
    pickle.loads(pickle.dumps(Payload(mark)))  # noqa: S301  the payload works
    assert mark.exists()
    mark.unlink()
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, root)
    harmful = np.array([Payload(mark)], dtype=object)
    for write in (
        lambda file: np.save(file, harmful, allow_pickle=True),
        lambda file: np.savez(file, pixel_values=harmful),
        lambda file: pickle.dump(Payload(mark), file),
    ):
        with (root / name).open("wb") as file:
            write(file)
        resealed(root, name)
        with pytest.raises(EdgegeoError):
            use_everything(root)
        assert not mark.exists()


def use_everything(root: Path) -> None:
    """Have every file of a bundle read."""
    from edgegeo.runtime import Reranker, verify_bundle

    model = Model.open(root, 1)
    grey = Image.new("RGB", (32, 32))
    Embedder(model).texts(["a river"])
    Reranker(model).score("a river", [grey])
    if not verify_bundle(root).passed:
        raise BundleError("the golden outputs differ")


@pytest.mark.parametrize("way", ["above", "absolute", "symlink", "hard link", "unlisted", "system"])
def test_a_graph_reads_only_files_of_its_bundle(tiny_bundle: Path, tmp_path: Path, way: str) -> None:
    onnx = pytest.importorskip("onnx")
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, root)
    graph = root / "onnx" / "lm_head.onnx"
    model = onnx.load(str(graph))
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    raw, outside, beside = weights.raw_data, tmp_path / "outside.bin", root / "onnx" / "weights.bin"
    outside.write_bytes(raw)
    location = {"above": "../../outside.bin", "absolute": str(outside), "system": "/etc/hostname"}.get(way, beside.name)
    if way == "symlink":
        beside.symlink_to(outside)
    elif way == "hard link":
        os.link(outside, beside)
    elif way == "unlisted":
        beside.write_bytes(raw)
    weights.ClearField("raw_data")
    del weights.external_data[:]
    weights.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(len(raw)))):
        weights.external_data.add(key=key, value=value)
    graph.write_bytes(model.SerializeToString())
    resealed(root, "onnx/lm_head.onnx")
    with pytest.raises(BundleError, match=r"External data path validation|does not list"):
        Model.open(root, 1).session("head")
    # The export reads graphs of others with onnx itself, which is safe from here on.
    assert re.search(r'"onnx>=1\.(2[1-9]|[3-9]\d)', (PACKAGE.parent / "pyproject.toml").read_text())


def test_a_flipped_bit_is_found_before_anything_is_parsed(
    tiny_bundle: Path, planet_gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("parsed before its hash was known to be right")

    rng = random.Random(3)
    for source, opened, error in (
        (planet_gallery, partial(Gallery.open, check_hashes=True), GalleryError),
        (tiny_bundle, open_bundle, BundleError),
    ):
        root = tmp_path / source.name
        shutil.copytree(source, root)
        opened(root)
        for file in sorted(file for file in root.rglob("*") if file.is_file() and file.stat().st_size):
            if file.name in (MANIFEST_NAME, "lock"):
                continue
            whole = file.read_bytes()
            for at in {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(6))}:
                hurt = bytearray(whole)
                hurt[at] ^= 1 << rng.randrange(8)
                file.write_bytes(hurt)
                with monkeypatch.context() as patch:
                    patch.setattr(np, "load", parse)
                    with pytest.raises(error):
                        opened(root)
            for cut in (0, len(whole) // 2, len(whole) - 1):
                file.write_bytes(whole[:cut])
                with pytest.raises(error):
                    opened(root)
            file.write_bytes(whole)
        opened(root)


def test_strangers_need_a_key_and_crowds_have_to_wait(engine: Engine, settings: ServerSettings) -> None:
    assert ServerSettings(bundles=settings.bundles).host == "127.0.0.1"
    for host in ("0.0.0.0", "::", "192.168.0.9", "edge.local"):
        with pytest.raises(ServerError, match="API key"):
            ServerSettings(bundles=settings.bundles, host=host)
    for key in ("short", "with spaces in it, long", "ünïcödé-ünïcödé-ünïcödé"):
        with pytest.raises(ServerError):
            ServerSettings(bundles=settings.bundles, api_key=key)
    key = "a-key-of-a-good-length"
    with started(engine, settings, api_key=key, queue_size=1, max_body_bytes=1000) as client:
        ask = {"text": "a river"}
        assert code(client.post("/v1/locate", json=ask)) == "missing_api_key"
        right = {"authorization": f"Bearer {key}"}
        assert client.post("/v1/locate", json=ask, headers=right).status_code == 200
        large = {"text": "a" * 1000}
        assert code(client.post("/v1/locate", json=large)) == "missing_api_key"
        assert code(client.post("/v1/locate", json=large, headers=right)) == "too_large"
        admission = client.app.state.context.admission  # type: ignore[attr-defined]
        admission.limit = 0
        answer = client.post("/v1/locate", json=ask, headers=right)
        assert (answer.status_code, code(answer)) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
