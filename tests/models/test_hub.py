"""Checkpoints by hub name, without a network: the hub's own cache, and every way to fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgegeo.errors import CheckpointError
from edgegeo.models.hub import checkpoint_name, find_checkpoint


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint(str(tmp_path)) == tmp_path
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("org/name") == Path("org/name")
    # What looks like a path stays one; opening it says what is missing.
    assert find_checkpoint("./org/other") == Path("./org/other")
    assert find_checkpoint("/no/such/place") == Path("/no/such/place")


def offline(code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_a_repository_downloaded_before_is_found_offline(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "models--org--name"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    code = "from edgegeo.models.hub import find_checkpoint; print(find_checkpoint('org/name'))"
    done = offline(code, tmp_path)
    assert done.stdout.strip() == str(snapshot), done.stderr
    assert checkpoint_name(snapshot) == "name"  # not the commit
    assert checkpoint_name(tmp_path / "mine") == "mine"


def test_a_repository_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    code = (
        "from edgegeo.models.hub import find_checkpoint\n"
        "from edgegeo.errors import CheckpointError\n"
        "try:\n    find_checkpoint('org/absent@v1')\n"
        "except CheckpointError as error:\n    print(error)\n"
    )
    done = offline(code, tmp_path)
    assert "no folder org/absent@v1, and org/absent can't be downloaded: the hub can't be reached" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_name_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="use ORG/NAME"):
        find_checkpoint("org/--bad..name--")
