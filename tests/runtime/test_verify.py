import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sealing import seal

from edgegeo.bundle import MANIFEST_NAME, Bundle, open_bundle, publish, staging
from edgegeo.errors import BundleError, InputError
from edgegeo.runtime import verify_bundle
from edgegeo.runtime.verify import golden_outputs


def republished(bundle: Bundle, target: Path, golden: dict) -> Path:
    """The same bundle with other golden data, hashes made anew."""
    with staging(target) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        np.savez(folder / "golden.npz", **golden)
        return publish(folder, bundle.manifest, target).path


def stored(bundle: Bundle) -> dict:
    with np.load(bundle.path / "golden.npz") as data:
        return {name: data[name] for name in data.files}


@pytest.mark.parametrize("which", ["tiny_bundle", "slq_tiny_bundle"])
def test_a_sound_bundle_passes(which: str, request: pytest.FixtureRequest) -> None:
    report = verify_bundle(request.getfixturevalue(which))
    assert report.passed
    names = {check.name for check in report.checks}
    assert {
        "pixels.0.pixel_values",
        "layout.0",
        "embed_text",
        "embed_image",
        "yes_no_margin",
        "answer_ids",
        "answer_lengths",
    } <= names
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True


@pytest.mark.parametrize(
    "name", ["pixels.1.pixel_values", "layout.0", "embed_text", "embed_image", "yes_no_margin", "answer_ids"]
)
def test_a_wrong_output_fails_its_own_check(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    bundle = open_bundle(tiny_bundle)
    golden = stored(bundle)
    golden[name] = golden[name][::-1].copy() + 1
    report = verify_bundle(republished(bundle, tmp_path / "b", golden))
    assert not report.passed
    assert [check.name for check in report.checks if not check.passed] == [name]


def test_missing_and_misshapen_outputs_fail(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    golden = stored(bundle)
    del golden["embed_text"]
    golden["embed_image"] = golden["embed_image"][:1]
    failed = [c.name for c in verify_bundle(republished(bundle, tmp_path / "b", golden)).checks if not c.passed]
    assert sorted(failed) == ["embed_image", "embed_text"]


def test_damage_is_an_error(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    graph = copy / "onnx" / "vision_encoder.onnx_data"
    data = bytearray(graph.read_bytes())
    data[7] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BundleError, match="differs from its recorded hash"):
        verify_bundle(copy)
    with pytest.raises(BundleError, match="can't be run"):
        verify_bundle(republished(open_bundle(tiny_bundle), tmp_path / "b", {"image": np.zeros(3)}))


@pytest.mark.parametrize(
    ("place", "value"), [("roles.embed.dim", 99), ("roles.embed.dim", -1), ("image.tokens", 0), ("trunk.layers", 43)]
)
def test_a_damaged_manifest_is_an_error(tiny_bundle: Path, tmp_path: Path, place: str, value: int) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    file = tmp_path / "copy" / MANIFEST_NAME
    manifest = json.loads(file.read_text())
    *above, last = place.split(".")
    table = manifest
    for name in above:
        table = table[name]
    table[last] = value
    seal(tmp_path / "copy", manifest)
    with pytest.raises(BundleError, match=r"can't be run .*; export the bundle again"):
        verify_bundle(tmp_path / "copy")


def edits(node: Any, root: Any = None) -> Iterator[str]:
    """Every edit of one field of a manifest, as JSON: each value another one, each key or item gone, each one more."""
    root = node if root is None else root
    places = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
    for key, value in places:
        node[key] = value + 1 if isinstance(value, int | float) else f"{value}x" if isinstance(value, str) else 1
        yield json.dumps(root)
        node[key] = value
        if isinstance(value, dict | list):
            yield from edits(value, root)
    for key, _ in places:
        fewer = {k: v for k, v in places if k != key} if isinstance(node, dict) else node[:key] + node[key + 1 :]
        whole = copy.copy(node)
        refill(node, fewer)
        yield json.dumps(root)
        refill(node, whole)
    refill(node, {**node, "more": 0} if isinstance(node, dict) else [*node, 0])
    yield json.dumps(root)
    refill(node, dict(places) if isinstance(node, dict) else [value for _, value in places])


def refill(node: Any, content: Any) -> None:
    """Other content in the same table or list."""
    node.clear()
    node.update(content) if isinstance(node, dict) else node.extend(content)


def test_every_edit_of_one_field_is_found(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    file = tmp_path / "copy" / MANIFEST_NAME
    before, tried = json.loads(file.read_text()), 0
    for edited in edits(json.loads(file.read_text())):
        tried += 1
        assert json.loads(edited) != before
        file.write_text(edited)
        with pytest.raises(BundleError):
            verify_bundle(tmp_path / "copy")
    assert tried > 500
    file.write_text(json.dumps(before))
    assert open_bundle(tmp_path / "copy").manifest.digest == before["digest"]


def test_an_edited_prompt_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    file = tmp_path / "copy" / MANIFEST_NAME
    manifest = json.loads(file.read_text())
    manifest["roles"]["embed"]["text_prompt"][0]["ids"] = [3]
    file.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"edgegeo\.json differs from the hash in it: .*; export the bundle again"):
        verify_bundle(tmp_path / "copy")


def test_a_manifest_without_a_digest_is_told(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    file = tmp_path / "copy" / MANIFEST_NAME
    old = json.loads(file.read_text()) | {"schema": 2}
    del old["digest"]
    file.write_text(json.dumps(old))
    report = verify_bundle(tmp_path / "copy")
    assert report.passed
    assert report.to_dict()["manifest_hashed"] is False
    assert verify_bundle(tiny_bundle).manifest_hashed


def test_golden_inputs_are_needed(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="at least one"):
        golden_outputs(open_bundle(tiny_bundle), np.zeros((0, 8, 8, 3), np.uint8), ["a"])
