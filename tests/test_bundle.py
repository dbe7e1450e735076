"""The bundle on disk: what is written is read back, and nothing damaged is ever opened."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sealing import seal

from edgegeo.bundle import (
    MANIFEST_NAME,
    Bundle,
    Component,
    EmbedRole,
    ImageSpec,
    Manifest,
    Roles,
    Segment,
    TrunkSpec,
    open_bundle,
    publish,
    staging,
)
from edgegeo.errors import BundleError


def manifest() -> Manifest:
    embed = EmbedRole("vision", "trunk", (Segment(text=0),), (Segment(ids=(1, 2)), Segment(image=0)), "eos", 8, 64)
    return Manifest(
        schema=1,
        name="tiny",
        family="smolvlm",
        dialect="ort",
        target="cpu",
        components={k: Component(k, f"onnx/{k}.onnx", "fp32") for k in ("vision", "trunk")},
        image=ImageSpec("smolvlm", 32, 1, 1 / 255, (0.5,) * 3, (0.5,) * 3, 4, longest_edge=32),
        trunk=TrunkSpec(2, 1, 4, 8, 16, 64),
        roles=Roles(embed=embed),
        tokenizer="tokenizer.json",
        embed_tokens="embed_tokens.npy",
        golden="golden.npz",
        accuracy={},
        calibration={},
        source={},
        tools={},
    )


def write(target: Path, content: bytes = b"graph") -> Bundle:
    with staging(target) as folder:
        (folder / "onnx").mkdir()
        for name in (
            "onnx/vision.onnx",
            "onnx/trunk.onnx",
            "tokenizer.json",
            "embed_tokens.npy",
            "golden.npz",
        ):
            (folder / name).write_bytes(content + name.encode())
        return publish(folder, manifest(), target)


def test_round_trip(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b")
    again = open_bundle(tmp_path / "b")
    assert again.manifest == bundle.manifest
    assert again.fingerprint == bundle.fingerprint
    assert again.component("vision").read_bytes() == b"graphonnx/vision.onnx"
    assert again.bytes == sum(p.stat().st_size for p in (tmp_path / "b").rglob("*") if p.is_file())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"], "no temporary folder is left"


def test_embedding_id_follows_the_weights(tmp_path: Path) -> None:
    assert write(tmp_path / "a").embedding_id == write(tmp_path / "b").embedding_id
    assert write(tmp_path / "a").embedding_id != write(tmp_path / "c", b"other").embedding_id


def truncate(root: Path) -> None:
    os.truncate(root / "onnx/trunk.onnx", 3)


def flip_a_bit(root: Path) -> None:
    data = bytearray((root / "onnx/trunk.onnx").read_bytes())
    data[2] ^= 1
    (root / "onnx/trunk.onnx").write_bytes(data)


def remove(root: Path) -> None:
    (root / "tokenizer.json").unlink()


def link(root: Path) -> None:
    (root / "real").write_bytes((root / "tokenizer.json").read_bytes())
    (root / "tokenizer.json").unlink()
    (root / "tokenizer.json").symlink_to(root / "real")


def hard_link(root: Path) -> None:
    os.link(root / "tokenizer.json", root.parent / "another name")


def stray(root: Path) -> None:
    (root / "onnx/deep").mkdir()
    (root / "onnx/deep/weights.bin").write_bytes(b"1234")


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        data = json.loads((root / MANIFEST_NAME).read_text())
        change(data)
        seal(root, data)

    return damage


def cut_manifest(root: Path) -> None:
    os.truncate(root / MANIFEST_NAME, 100)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "cut off"),
        (flip_a_bit, "differs from its recorded hash"),
        (remove, "missing"),
        (link, "link"),
        (hard_link, "link"),
        (stray, "does not list 'onnx/deep/weights.bin'"),
        (cut_manifest, "can't be read"),
        (edit(lambda d: d.update(schema=99)), "version 99"),
        (edit(lambda d: d.pop("image")), "lacks the key 'image'"),
        (edit(lambda d: d["components"]["trunk"].update(file="")), "lists no graph ''"),
        (
            edit(lambda d: d["files"].update({"../../etc/passwd": {"bytes": 1, "sha256": ""}})),
            "outside the bundle",
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    write(tmp_path / "b")
    damage(tmp_path / "b")
    with pytest.raises(BundleError, match=words):
        open_bundle(tmp_path / "b")


def test_a_manifest_before_there_were_digests_is_read(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b")
    old = json.loads((bundle.path / MANIFEST_NAME).read_text()) | {"schema": 2}
    del old["digest"]
    (bundle.path / MANIFEST_NAME).write_text(json.dumps(old))
    assert open_bundle(bundle.path).manifest.digest == ""
    assert open_bundle(bundle.path).embedding_id == bundle.embedding_id
    (bundle.path / MANIFEST_NAME).write_text(json.dumps(old | {"schema": 3}))
    with pytest.raises(BundleError, match="differs from the hash in it"):
        open_bundle(bundle.path)


def test_the_same_manifest_in_another_order_has_the_same_digest(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b")
    data = json.loads((bundle.path / MANIFEST_NAME).read_text())
    (bundle.path / MANIFEST_NAME).write_text(json.dumps(dict(reversed(data.items()))))
    assert open_bundle(bundle.path).manifest == bundle.manifest


def test_a_missing_bundle_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="edgegeo export --int8"):
        open_bundle(tmp_path / "none")


def test_the_old_bundle_survives_a_failed_write(tmp_path: Path) -> None:
    old = write(tmp_path / "b")

    def fail() -> None:
        with staging(tmp_path / "b") as folder:
            (folder / "onnx").mkdir()
            raise OSError(28, "No space left on device")

    with pytest.raises(BundleError, match="No space left"):
        fail()
    assert open_bundle(tmp_path / "b").fingerprint == old.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


def test_replacing_a_bundle_keeps_only_the_new_one(tmp_path: Path) -> None:
    old = write(tmp_path / "b")
    new = write(tmp_path / "b", b"new")
    assert open_bundle(tmp_path / "b").fingerprint == new.fingerprint != old.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("all I have")
    with pytest.raises(BundleError, match="not a bundle"):
        write(tmp_path / "b")
    assert (tmp_path / "b" / "thesis.txt").read_text() == "all I have"


def test_a_prompt_segment_is_one_thing() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Segment(ids=(1,), text=0)
    assert replace(Segment(text=0), text=1).text == 1
