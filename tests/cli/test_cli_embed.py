"""edgegeo embed in fewer bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sealing import seal

from edgegeo.bundle import open_bundle, publish
from edgegeo.runtime.codes import from_binary, from_int8


@pytest.fixture(scope="module")
def short_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle as if trained for embeddings of 8 numbers, with scales."""
    folder = tmp_path_factory.mktemp("short") / "draft"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "edgegeo.json").read_text())
    dim = manifest["roles"]["embed"]["dim"]
    manifest["roles"]["embed"] |= {"matryoshka": [8], "scales": "embedding_scales.npy"}
    seal(folder, manifest)
    scales = np.full((2, dim), 0.004, np.float32)
    scales[1, 8:] = 0
    np.save(folder / "embedding_scales.npy", scales)
    draft = open_bundle(folder)
    return publish(folder, draft.manifest, folder.with_name("short")).path


def embedded(cli: Any, bundle: Path, file: Path, *words: object) -> np.ndarray:
    done = cli("embed", "--text", "a lake", "--text", "red roofs", "--bundle", bundle, "-o", file, *words)
    assert done.code == 0, done
    return np.load(file)


def test_codes_hold_what_the_vectors_say(cli: Any, short_bundle: Path, tmp_path: Path) -> None:
    whole = embedded(cli, short_bundle, tmp_path / "a.npy")
    assert whole.dtype == np.float32
    int8 = embedded(cli, short_bundle, tmp_path / "b.npy", "--encode", "int8")
    assert int8.dtype == np.int8
    inside = np.abs(whole) <= 127 * 0.004
    back = from_int8(int8, np.full(whole.shape[1], 0.004, np.float32))
    assert np.abs(back - whole)[inside].max() <= 0.0021
    bits = embedded(cli, short_bundle, tmp_path / "c.npy", "--encode", "binary")
    assert bits.shape == (2, -(-whole.shape[1] // 8))
    np.testing.assert_array_equal(from_binary(bits, whole.shape[1]) > 0, whole > 0)


def test_shorter_embeddings_are_unit_vectors_of_their_own(cli: Any, short_bundle: Path, tmp_path: Path) -> None:
    whole = embedded(cli, short_bundle, tmp_path / "a.npy")
    short = embedded(cli, short_bundle, tmp_path / "b.npy", "--dims", 8)
    np.testing.assert_allclose(
        short, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), rtol=1e-5, atol=1e-6
    )
    said = cli("embed", "--text", "a lake", "--bundle", short_bundle, "--dims", 8, "--encode", "int8", "--json").json
    assert (said["dim"], said["encoding"], len(said["scales"])) == (8, "int8", 8)
    assert all(isinstance(one, int) for one in said["items"][0]["embedding"])
    assert said["embedding_id"].endswith(":8")


def test_the_table_shows_each_encoding(cli: Any, short_bundle: Path) -> None:
    for encode, part in (("float32", "numbers"), ("int8", "numbers"), ("binary", "bytes")):
        done = cli("embed", "--text", "a lake", "--bundle", short_bundle, "--encode", encode)
        assert part in done.out


def test_lengths_and_codes_that_are_not_there(cli: Any, tiny_bundle: Path, short_bundle: Path) -> None:
    words = ("embed", "--text", "a lake", "--bundle")
    assert "may have 8, " in cli(*words, short_bundle, "--dims", 9).refused()
    assert "train a retriever with matryoshka = [8]" in cli(*words, tiny_bundle, "--dims", 8).refused()
    assert "holds no scales" in cli(*words, tiny_bundle, "--encode", "int8").refused()
    assert "--encode takes float32, int8, binary" in cli(*words, tiny_bundle, "--encode", "int4").refused()
