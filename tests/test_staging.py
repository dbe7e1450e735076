"""Folders beside a target: what a killed process left goes, what a living one fills stays, and no bundle is lost."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgegeo import staging as staging_module
from edgegeo.errors import BundleError
from edgegeo.staging import move_in, staging

FILLS = """
import sys, time
from pathlib import Path
from edgegeo.staging import staging
with staging(sys.argv[1]) as one, staging(sys.argv[1]) as other:
    for folder in (one, other):
        (folder / "weights").write_bytes(b"half")
    print("filling", flush=True)
    time.sleep(600)
"""
MOVES = """
import os, signal, sys
from pathlib import Path
from edgegeo.staging import move_in, staging
rename, target = os.rename, Path(sys.argv[1])
def killed(one, other):
    if Path(other) == target:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(one, other)
os.rename = killed
with staging(target) as folder:
    (folder / "new").touch()
    move_in(folder, target)
"""


@contextmanager
def filling(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that fills two folders beside `target`, killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", FILLS, str(target)], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "filling\n"
            yield process
        finally:
            process.kill()


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def make(target: Path, name: str) -> None:
    with staging(target) as folder:
        (folder / name).touch()
        move_in(folder, target)


def test_what_a_killed_process_left_goes_with_the_next_of_its_name(tmp_path: Path) -> None:
    target = tmp_path / "my-bundle"
    with filling(target):
        left = names(tmp_path)
        assert len(left) == 2
        make(target, "mine")
        assert names(tmp_path) == sorted([*left, "my-bundle"]), "those are being filled"
    make(tmp_path / "my", "other")
    make(tmp_path / "my-bundle.int4", "other")
    assert set(left) < set(names(tmp_path)), "of another name"
    make(target, "mine")
    assert names(tmp_path) == ["my", "my-bundle", "my-bundle.int4"]


def test_a_bundle_that_was_out_of_the_way_when_its_successor_was_killed_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "b"
    make(target, "old")
    killed = subprocess.run([sys.executable, "-c", MOVES, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    with staging(target):
        assert names(target) == ["old"]
    assert names(tmp_path) == ["b"]


def test_an_old_bundle_that_was_not_removed_goes(tmp_path: Path) -> None:
    make(tmp_path / "b", "new")
    (tmp_path / ".b.0123abcd.old").mkdir()
    make(tmp_path / "b", "newest")
    assert names(tmp_path) == ["b"]
    assert names(tmp_path / "b") == ["newest"]


def test_links_and_files_of_such_a_name_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").touch()
    (tmp_path / ".b.0123abcd.part").symlink_to(tmp_path / "precious")
    (tmp_path / ".b.4567abcd.part").touch()
    make(tmp_path / "b", "new")
    assert names(tmp_path) == [".b.0123abcd.part", ".b.4567abcd.part", "b", "precious"]
    assert names(tmp_path / "precious") == ["thesis"]


def test_a_move_that_fails_puts_back_what_stood_there(tmp_path: Path) -> None:
    make(tmp_path / "b", "old")
    unchanged = r"writing the bundle failed .*What stood at .*b before is unchanged"
    with pytest.raises(BundleError, match=unchanged), staging(tmp_path / "b"):
        move_in(tmp_path / "missing", tmp_path / "b")
    assert names(tmp_path / "b") == ["old"]
    assert names(tmp_path) == ["b"]


def test_a_file_system_without_locks_is_written_to_but_not_cleared_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".b.0123abcd.part").mkdir()
    make(tmp_path / "b", "old")
    make(tmp_path / "b", "new")
    assert names(tmp_path) == [".b.0123abcd.part", "b"]
    assert names(tmp_path / "b") == ["new"]


def test_a_folder_that_was_cleared_up_before_it_was_held_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = iter([tmp_path / ".b.aaaaaaaa.part", tmp_path / ".b.bbbbbbbb.part"])

    def make_one(**_: object) -> str:
        folder = next(made)
        if "bbbb" in folder.name:
            folder.mkdir()
        return str(folder)

    monkeypatch.setattr(staging_module.tempfile, "mkdtemp", make_one)
    with staging(tmp_path / "b") as folder:
        assert folder.name == ".b.bbbbbbbb.part"
    assert names(tmp_path) == []
