"""Galleries built by Ray workers: the same rows as built here, whatever happens to a worker."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gallery_tiles import held, photo_list, tile
from PIL import Image

from edgegeo.errors import GalleryError
from edgegeo.runtime import Embedder, Gallery, Row
from edgegeo.runtime.gallery.build import build_gallery
from edgegeo.runtime.gallery.intake import IntakeSettings
from edgegeo.runtime.gallery.rows import Drawn, Origin, Tiles
from edgegeo.runtime.gallery.sources import csv_list

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a worker takes a minute to start on a machine that is busy
    # Of Ray itself: sockets of the processes that it leaves to the system, what it plans for later versions.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
ray = pytest.importorskip("ray", reason="needs the extra ray")
SMALL = IntakeSettings(batch=4, part_rows=4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    from edgegeo.runtime.gallery.ray_workers import _connect

    _connect(ray, "local", 2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    return Embedder.open(tiny_bundle, threads=1)


def drawn_slowly(number: int, seconds: float = 0.1) -> Row:
    """A tile that takes a worker so long that it has some in hand when it is killed."""
    picture = tile(number)

    def draw() -> Image.Image:
        time.sleep(seconds)
        return picture

    return Row(f"tile-{number}", number / 2, 1.0, Drawn(f"slow {number}", draw))


def started(embedder: Embedder, **how: Any) -> Any:
    from edgegeo.runtime.gallery.ray_workers import RayWorkers

    return RayWorkers(embedder, **how)


def test_the_rows_are_those_of_a_local_build(cluster: None, embedder: Embedder, tmp_path: Path) -> None:
    rows = csv_list(photo_list(tmp_path / "photos", 30))
    here = build_gallery(tmp_path / "here", rows, embedder, settings=SMALL).gallery
    there = build_gallery(tmp_path / "there", rows, embedder, settings=SMALL, workers=started(embedder)).gallery
    assert held(there) == held(here)
    assert there.skipped == here.skipped
    assert [segment.digests.all().tobytes() for segment in there.stack.segments] == [
        segment.digests.all().tobytes() for segment in here.stack.segments
    ]


def test_a_worker_is_killed_midway(cluster: None, embedder: Embedder, tmp_path: Path) -> None:
    tiles = [drawn_slowly(number) for number in range(40)]
    rows = Tiles(Origin("rows", "slow"), lambda: iter(tiles), 40)
    workers = started(embedder, workers=2)
    before = dict(enumerate(workers.whereabouts()))
    submitted: list[str] = []
    submit = workers.submit
    workers.submit = lambda chunk: submitted.extend(row.id for row in chunk) or submit(chunk)
    after: list[tuple[str, int]] = []

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "tiles" and done == 8:
            os.kill(before[0][1], signal.SIGKILL)
        if stage == "tiles" and done == 40:
            after.extend(workers.whereabouts())

    report = build_gallery(tmp_path / "there", rows, embedder, settings=SMALL, workers=workers, progress=kill)
    assert after[0][1] != before[0][1]  # it was started again
    assert after[1] == before[1]
    assert sorted(submitted) == sorted(set(submitted))
    names = held(report.gallery).ids
    assert names == [f"tile-{i}" for i in range(40)]  # each once, in order
    assert held(report.gallery) == held(build_gallery(tmp_path / "here", rows, embedder, settings=SMALL).gallery)


def test_the_build_is_stopped_and_goes_on(cluster: None, embedder: Embedder, tmp_path: Path) -> None:
    rows = csv_list(photo_list(tmp_path / "photos", 30))

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_gallery(
            tmp_path / "g", rows, embedder, settings=SMALL, workers=started(embedder, workers=1), progress=stop
        )
    report = build_gallery(tmp_path / "g", rows, embedder, settings=SMALL, workers=started(embedder, workers=1))
    assert report.resumed == 14
    assert held(report.gallery) == held(build_gallery(tmp_path / "here", rows, embedder, settings=SMALL).gallery)


def test_a_picture_that_ends_every_worker(cluster: None, embedder: Embedder, tmp_path: Path) -> None:
    def deadly() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    good = [drawn_slowly(number, 0.0) for number in range(4)]
    bad = good[3]._replace(image=Drawn("deadly", deadly))
    tiles = Tiles(Origin("rows", "deadly"), lambda: iter([*good[:3], bad]), 4)
    settings = IntakeSettings(batch=1, part_rows=1)
    with pytest.raises(GalleryError, match=r"ended 4 times over the tiles 'tile-3' to 'tile-3'.*kept"):
        build_gallery(tmp_path / "g", tiles, embedder, settings=settings, workers=started(embedder, workers=1))
    whole = Tiles(tiles.origin, lambda: iter(good), 4)
    assert build_gallery(tmp_path / "g", whole, embedder, settings=settings).resumed == 3


def test_what_is_refused(
    cluster: None, embedder: Embedder, other_tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GalleryError, match="for 2 workers, not 9"):
        started(embedder, workers=9)
    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embedding_id", "other")
        with pytest.raises(GalleryError, match="another bundle"):
            started(embedder, workers=1)
    workers = started(embedder, workers=1)
    assert workers.result(workers.submit([])) == []
    (tmp_path / "here.png").write_bytes(b"x")
    row = Row("a", 1.0, 2.0, str(tmp_path / "gone.png"))
    ticket = workers.submit([row])
    assert "no picture" in workers.result(ticket)[0].reason
    ticket = workers.submit([row])
    ray.wait([ticket[0]])
    (tmp_path / "gone.png").write_bytes(b"x")
    with pytest.raises(GalleryError, match="where every node"):
        workers.result(ticket)
    workers.close()
    workers.close()


def test_a_node_that_comes_up_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgegeo.runtime.gallery.ray_workers import _connect

    def init(**settings: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(GalleryError, match=r"did not start on this machine \(The current node timed out"):
        _connect(ray, "local", 1)


def test_from_the_command_line(tiny_bundle: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    source = photo_list(tmp_path / "photos", 10)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgegeo", "index", "build", str(source), "--bundle", str(tiny_bundle), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)

    done = run("-o", str(tmp_path / "g"), "--ray", "local", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "10 tiles, 2 skipped" in done.stdout
    assert "2 Ray workers on 1 node" in done.stderr
    assert len(Gallery.open(tmp_path / "g")) == 10
    for address in ("127.0.0.1:1", "somewhere", "127.0.0.1:many"):
        wrong = run("-o", str(tmp_path / "other"), "--ray", address)
        assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
        assert f"error: no Ray cluster at {address}" in wrong.stderr
