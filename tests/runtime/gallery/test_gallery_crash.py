"""Builds, additions and compactions under SIGKILL: a gallery opens whole, and finishing gives an undisturbed one."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gallery_crash
import pytest
from gallery_tiles import Held, held, photo_list

from edgegeo.errors import GalleryError
from edgegeo.runtime import Gallery

KILLS = int(os.environ.get("KILLS", "50"))
"""Random moments of each verb in the slow tests."""


class Crasher:
    """tests/gallery_crash.py with one bundle."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._process = subprocess.Popen(
            [sys.executable, gallery_crash.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, verb: str, source: Path, target: Path, after_s: float | None = None, at_sync: int | None = None
    ) -> tuple[bool, float]:
        """Whether it was killed, and the seconds it lived."""
        task = {"verb": verb, "bundle": str(self._bundle), "source": str(source), "target": str(target)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**task, "after_s": after_s, "at_sync": at_sync}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["status"] in (0, 9), "the child failed"
        return answer["status"] == 9, answer["s"]

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()


@pytest.fixture(scope="module")
def crasher(tiny_bundle: Path) -> Iterator[Crasher]:
    crasher = Crasher(tiny_bundle)
    yield crasher
    crasher.close()


class Scene:
    """An undisturbed run of a verb, and how a disturbed one is checked against it."""

    def __init__(self, crasher: Crasher, verb: str, folder: Path) -> None:
        self.crasher, self.verb, self.folder = crasher, verb, folder
        self.before: Held | None = None
        first = photo_list(folder / "photos", 20)
        self.source = first
        if verb != "build":
            crasher.run("build", first, folder / "base")
            self.before = held(Gallery.open(folder / "base"))
            self.source = photo_list(folder / "photos", 24, first=50) if verb == "add" else first
        _, self.seconds = crasher.run(verb, self.source, self.place("undisturbed"))
        self.after = held(Gallery.open(folder / "undisturbed"))
        assert len(self.after.ids) == 20 + 24 * (verb == "add")

    def place(self, name: str) -> Path:
        if self.before is not None:
            shutil.copytree(self.folder / "base", self.folder / name)
        return self.folder / name

    def stands(self, target: Path) -> bool:
        """Whether the gallery is the finished one; it must open whole, or say plainly that it is not finished."""
        if self.before is None and not (target / "gallery.json").exists():
            with pytest.raises(GalleryError, match=r"not finished|no gallery at|not a gallery"):
                Gallery.open(target)
            return False
        found = held(Gallery.open(target))
        assert found in (self.before, self.after)
        return found == self.after

    def finish(self, target: Path) -> None:
        if self.verb != "build" and self.stands(target):
            return  # killed after the new version stood: what is no longer needed goes with the next change
        assert not self.crasher.run(self.verb, self.source, target)[0]
        gallery = Gallery.open(target)
        assert held(gallery) == self.after
        assert sorted(p.name for p in target.iterdir()) == ["gallery.json", "lock", "segments"]
        assert {p.name for p in (target / "segments").iterdir()} == {s.name for s in gallery.info.segments}


def killed_at_random(scene: Scene, kills: int, seed: int) -> int:
    """Kill the verb so often, finish it after each few times, and return how often it was finished."""
    done = killed = 0
    while killed < kills:
        rng = random.Random(f"{seed} {scene.verb} {done}")  # a round of its own can be had again
        target = scene.place(f"killed-{done}")
        for _ in range(rng.choice((1, 1, 2, 3))):  # some are killed again while they resume
            if scene.verb == "build" or not scene.stands(target):
                killed += scene.crasher.run(scene.verb, scene.source, target, rng.uniform(0.0, scene.seconds))[0]
            scene.stands(target)
        scene.finish(target)
        shutil.rmtree(target)
        done += 1
        assert done < 10 * kills
    return done


@pytest.mark.parametrize("verb", ["build", "add", "compact"])
def test_killed_at_random_moments(crasher: Crasher, verb: str, tmp_path: Path) -> None:
    killed_at_random(Scene(crasher, verb, tmp_path), 4, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", ["build", "add", "compact"])
def test_killed_at_many_random_moments(crasher: Crasher, verb: str, tmp_path: Path) -> None:
    done = killed_at_random(Scene(crasher, verb, tmp_path), KILLS, seed=1)
    print(f"{verb}: killed at {KILLS} random moments, finished {done} times")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["build", "add", "compact"])
def test_killed_at_every_durable_step(crasher: Crasher, verb: str, tmp_path: Path) -> None:
    scene = Scene(crasher, verb, tmp_path)
    for step in range(1, 1000):
        target = scene.place(f"step-{step}")
        killed, _ = scene.crasher.run(verb, scene.source, target, at_sync=step)
        if not killed:
            break
        scene.stands(target)
        scene.finish(target)
        shutil.rmtree(target)
    assert (15 if verb == "compact" else 40) < step < 999
