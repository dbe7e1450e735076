"""A folder looked at again and again."""

import os
from pathlib import Path

import pytest

from edgegeo.errors import InputError
from edgegeo.runtime.watch import Watch


def written(file: Path, data: bytes, time: int) -> Path:
    """A file with a time of its own, so that the test needs no waiting."""
    file.write_bytes(data)
    os.utime(file, (time, time))
    return file


def test_new_photos_are_told_once_and_whole(tmp_path: Path) -> None:
    written(tmp_path / "old.jpg", b"old", 1)
    watch = Watch(tmp_path)
    assert [file.name for file in watch.old] == ["old.jpg"]
    assert watch.poll() == []
    photo = written(tmp_path / "new.JPG", b"hal", 2)
    assert watch.poll() == []
    written(photo, b"half", 3)  # still growing
    assert watch.poll() == []
    assert watch.poll() == [photo]
    assert watch.poll() == []
    written(photo, b"half and whole", 4)  # it only seemed to be done
    assert watch.poll() == []
    assert watch.poll() == [photo]


def test_oldest_first_and_no_duplicates(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    later, sooner = written(tmp_path / "a.png", b"a", 20), written(tmp_path / "b.webp", b"b", 10)
    written(tmp_path / "copy.png", b"a", 30)
    watch.poll()
    assert watch.poll() == [sooner, later]
    written(later, b"a", 40)  # touched, the same picture
    watch.poll()
    assert watch.poll() == []
    sooner.unlink()
    watch.poll()
    again = written(tmp_path / "b.webp", b"another", 10)
    watch.poll()
    assert watch.poll() == [again]


def test_what_is_left_alone(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    for name in (".hidden.jpg", "notes.txt", "half.jpg.part"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    assert [watch.poll() for _ in range(3)] == [[], [], []]


def test_photos_goes_on_for_ever(tmp_path: Path) -> None:
    watch, naps = Watch(tmp_path), []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) in (1, 4):
            written(tmp_path / f"{len(naps)}.jpg", bytes(len(naps)), len(naps))

    photos = watch.photos(0.25, nap)
    assert [next(photos).name, next(photos).name] == ["1.jpg", "4.jpg"]
    assert set(naps) == {0.25}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't watch"):
        Watch(tmp_path / "none")
    watch = Watch(tmp_path)
    tmp_path.rename(tmp_path.with_name("moved"))
    with pytest.raises(InputError, match="can't watch"):
        watch.poll()
