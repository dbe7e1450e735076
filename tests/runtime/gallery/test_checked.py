from pathlib import Path

import numpy as np
import pytest

from edgegeo.errors import GalleryError
from edgegeo.runtime.gallery.checked import BLOCK, Checked, CheckedArray, sums_of
from edgegeo.runtime.gallery.ids import IdRows, hash_of, sorted_keys
from edgegeo.runtime.gallery.packed import Packed, PackedWriter


@pytest.mark.parametrize("row_bytes", [1, 24, 1152, BLOCK, BLOCK + 8, 3 * BLOCK])
def test_every_row_is_checked_before_it_is_given(tmp_path: Path, row_bytes: int) -> None:
    rows = max(4, 5 * BLOCK // row_bytes)
    array = np.random.default_rng(0).integers(0, 256, (rows, row_bytes), np.uint8)
    np.save(tmp_path / "a.npy", array)
    _, sums = sums_of(tmp_path / "a.npy")
    whole = (tmp_path / "a.npy").read_bytes()
    for row in np.unique(np.linspace(0, rows - 1, 7).astype(int)).tolist():
        damaged = bytearray(whole)
        damaged[len(whole) - (rows - row) * row_bytes + row_bytes // 2] ^= 16
        (tmp_path / "a.npy").write_bytes(damaged)
        for ask in (row, [row], np.array([row, 0, row]), slice(row, row + 1), slice(None)):
            with pytest.raises(GalleryError, match=r"a\.npy is damaged"):
                CheckedArray(Checked(tmp_path / "a.npy", sums), array.shape, np.uint8)[ask]
        mapped = Checked(tmp_path / "a.npy", sums)
        far = 0 if row > rows // 2 else rows - 1
        if abs(far - row) * row_bytes > 2 * BLOCK and row * row_bytes > BLOCK and row_bytes < BLOCK:
            np.testing.assert_array_equal(CheckedArray(mapped, array.shape, np.uint8)[far], array[far])
        with pytest.raises(GalleryError):
            mapped.check()


def test_rows_out_of_range_and_other_shapes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 3), np.float32))
    _, sums = sums_of(tmp_path / "a.npy")
    array = CheckedArray(Checked(tmp_path / "a.npy", sums), (5, 3), np.float32)
    for row in (-1, 5, [0, 7]):
        with pytest.raises(IndexError):
            array[row]
    assert array[[]].shape == (0, 3)
    assert len(list(array)) == 5
    for shape, kind in (((5, 4), np.float32), ((5, 3), np.float64), ((6, 3), np.float32)):
        with pytest.raises(GalleryError, match="instead of"):
            CheckedArray(Checked(tmp_path / "a.npy", sums), shape, kind)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes() + b"1")
    with pytest.raises(GalleryError, match="another length"):
        CheckedArray(Checked(tmp_path / "a.npy", None), (5, 3), np.float32)


def test_ids_whose_hashes_agree_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegeo.runtime.gallery.ids.hash_of", lambda id: (bytes(7) + id[:1]).ljust(8))
    names = [b"b1", b"a1", b"a2", b"", b"a1", b"c"]
    with PackedWriter(tmp_path, "ids") as writer:
        writer.extend(names[:2])
        writer.extend(names[2:])
    ids = Packed(Checked(tmp_path / "ids.bin", None), Checked(tmp_path / "ids.offsets.npy", None), len(names))
    assert ids.all() == names
    rows = IdRows(ids, None)
    assert [list(rows.rows(id)) for id in (b"a1", b"a2", b"b1", b"c", b"", b"a3", b"d")] == [
        [1, 4], [2], [0], [5], [3], [], [],
    ]  # fmt: skip


def test_keys_are_sorted() -> None:
    keys = sorted_keys(b"".join(hash_of(b"%d" % number) for number in range(1000)))
    assert (np.diff(keys[:, 0].astype(object)) > 0).all()
    assert sorted(keys[:, 1].tolist()) == list(range(1000))
