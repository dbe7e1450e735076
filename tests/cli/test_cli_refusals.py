"""What a person can get wrong, each answered with one line and exit code 2."""

import shutil
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

VERBS = [("locate",), ("verify",), ("embed", "--text", "x"), ("index", "build"), ("serve",), ("eval",)]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_no_bundle(cli: Any, words: tuple[str, ...]) -> None:
    assert "edgegeo export --int8" in cli(*words).refused()


def test_damaged_bundle(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    for name, damage in (("cut", lambda data: data[:-10]), ("flip", lambda data: data[:99] + b"\x00" + data[100:])):
        folder = tmp_path / name
        shutil.copytree(tiny_bundle, folder)
        file = max(folder.rglob("*.onnx"), key=lambda f: f.stat().st_size)
        file.write_bytes(damage(file.read_bytes()))
        assert file.name in cli("locate", "--bundle", folder).refused()


def bomb(file: Path) -> Path:
    """A PNG whose header declares 20,000 x 20,000 pixels."""
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    chunks = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return file


def test_unusable_pictures(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (1, 4000)).save(tmp_path / "line.png")
    bomb(tmp_path / "bomb.png")
    for name in ("text.jpg", "empty.png", "dot.png", "line.png", "bomb.png", "missing.jpg"):
        for verb in ("locate", "embed"):
            assert name in cli(verb, tmp_path / name, "--bundle", tiny_bundle).refused()


def test_unusable_texts(cli: Any, tiny_bundle: Path, gallery: Path) -> None:
    for text in ("", "   ", "river " * 17_000):
        for verb in (("locate",), ("index", "search")):
            refusal = cli(*verb, "--text", text, "--bundle", tiny_bundle, "--gallery", gallery).refused()
            assert "text" in refusal
            assert len(refusal) < 300


def test_gallery_of_another_bundle(cli: Any, other_tiny_bundle: Path, gallery: Path, photo: Path) -> None:
    for verb in (("locate",), ("index", "search")):
        refusal = cli(*verb, photo, "--bundle", other_tiny_bundle, "--gallery", gallery).refused()
        assert "rebuild it with: edgegeo index build" in refusal


def test_lists_with_faults(cli: Any, tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    shutil.copy(photo, tmp_path / "a.jpg")
    for body, part in (
        ("path,lat,lon\na.jpg,nan,2\n", "line 2"),
        ("path,lat,lon\na.jpg,1,2\na.jpg,91,2\n", "line 3"),
        ("path,lat,lon\na.jpg,north,2\n", "line 2"),
        ("path,lat\na.jpg,1\n", "no column lon"),
        ("path,lat,lon\n", "no usable tiles"),
        ("path,lat,lon\na.jpg,1,2\na.jpg,1,2\n", "same id"),
    ):
        (tmp_path / "list.csv").write_text(body)
        words = ("index", "build", tmp_path / "list.csv", "-o", tmp_path / "g", "--bundle", tiny_bundle)
        assert part in cli(*words).refused()
    assert not (tmp_path / "g").exists()
    for source in (tmp_path / "missing.csv", tmp_path / "missing", tmp_path / "a.jpg"):
        assert source.name in cli("index", "build", source, "-o", tmp_path / "g", "--bundle", tiny_bundle).refused()


def test_a_folder_of_something_else_is_never_replaced(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    words = ("index", "build", "--places", 2, "--bundle", tiny_bundle, "-o", tmp_path / "mine")
    assert "is not a gallery" in cli(*words).refused()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_nothing_asked(cli: Any, tiny_bundle: Path, photo: Path) -> None:
    assert "--text" in cli("embed", "--bundle", tiny_bundle).refused()
    assert "--text" in cli("index", "search", "--bundle", tiny_bundle).refused()
    assert "not both" in cli("index", "search", photo, "--text", "x", "--bundle", tiny_bundle).refused()
    assert "index build" in cli("locate", "--text", "x", "--bundle", tiny_bundle).refused()
    assert "place numbers" in cli("locate", "--place", -1, "--bundle", tiny_bundle).refused()


def test_unwritable_results(cli: Any, tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "x"
    words = ("--bundle", tiny_bundle)
    assert "can't write" in cli("embed", photo, *words, "-o", below.with_suffix(".npy")).refused()
    assert "can't write" in cli("locate", photo, *words, "--map", below.with_suffix(".png")).refused()
    assert ".png" in cli("locate", photo, *words, "--map", tmp_path / "x.txt").refused()
    assert "can't write" in cli("planet", "map", "-o", below.with_suffix(".png")).refused()
    assert "can't write" in cli("index", "build", "--places", 2, *words, "-o", below).refused()


def test_devices_are_never_replaced_in_silence(cli: Any, tiny_bundle: Path) -> None:
    assert "cuda" in cli("locate", "--bundle", tiny_bundle, "--provider", "cuda").refused()
    assert "abacus" in cli("locate", "--bundle", tiny_bundle, "--provider", "abacus").refused()


def test_serving(cli: Any, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEGEO_API_KEY", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        assert str(port) in cli("serve", "--bundle", tiny_bundle, "--port", port).refused()
    assert "EDGEGEO_API_KEY" in cli("serve", "--bundle", tiny_bundle, "--host", "0.0.0.0").refused()
    assert "port" in cli("serve", "--bundle", tiny_bundle, "--port", 70_000).refused()
    assert "key" in cli("serve", "--bundle", tiny_bundle, "--api-key-file", tmp_path / "none").refused()


def test_comparing_and_scoring(cli: Any, tiny_bundle: Path) -> None:
    assert "--tasks" in cli("eval", "--bundle", tiny_bundle, "--tasks", "magic").refused()
    assert "--split" in cli("eval", "--bundle", tiny_bundle, "--split", "secret").refused()
