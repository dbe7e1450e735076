"""Several bundles in one process: opened when asked for, retired when there is no room, swapped under load."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rewritten import rewritten

from edgegeo.bundle import open_bundle, publish, staging
from edgegeo.errors import BundleError, EdgegeoError, GalleryError, ServerError
from edgegeo.home import default_gallery
from edgegeo.runtime import Embedder, Gallery
from edgegeo.runtime.gallery.edit import delete_tiles
from edgegeo.server import fleet as fleet_module
from edgegeo.server.engine import Engine
from edgegeo.server.faults import Refusal
from edgegeo.server.fleet import Fleet
from edgegeo.server.metrics import Metrics
from edgegeo.server.settings import ServerSettings

MB = 2**20
Main = Callable[[Fleet], Coroutine[Any, Any, None]]


@pytest.fixture
def home(tiny_bundle: Path, other_tiny_bundle: Path, planet_gallery: Path, tmp_path: Path) -> Path:
    """Copies that may be changed: `tiny` with its gallery `tiles`, `other`, and `third`, which is `tiny` renamed."""
    copytree(tiny_bundle, tmp_path / "tiny")
    copytree(other_tiny_bundle, tmp_path / "other")
    copytree(planet_gallery, tmp_path / "tiles")
    rewritten(tiny_bundle, tmp_path / "third", name="third")
    return tmp_path


def run(home: Path, main: Main, names: tuple[str, ...] = ("tiny", "other", "third"), **changes: Any) -> Metrics:
    """`main` with a started fleet; what the metrics counted."""
    settings = ServerSettings(
        bundles=tuple(home / name for name in names), gallery=home / "tiles", threads=1, max_batch=4, **changes
    )

    async def whole() -> Metrics:
        metrics = Metrics(lambda: 0)
        fleet = Fleet(Engine.open(settings), settings, metrics)
        try:
            await fleet.start()
            await main(fleet)
        finally:
            await fleet.close()
        return metrics

    return asyncio.run(whole())


def loaded(fleet: Fleet) -> list[str]:
    return [card.name for card in fleet.cards() if card.loaded]


async def embedded(fleet: Fleet, model: str | None, text: str = "a river") -> np.ndarray:
    async with fleet.use(model) as serving:
        return (await serving.embed([text]))[0][0]


async def is_gone(reference: "weakref.ref[Any]") -> bool:
    """Whether nothing holds the object any more; the model thread lets go of it a moment after its last answer."""
    for _ in range(100):
        gc.collect()
        if reference() is None:
            return True
        await asyncio.sleep(0.01)
    return False


def test_a_bundle_is_opened_when_it_is_named_and_answers_for_itself(home: Path) -> None:
    async def main(fleet: Fleet) -> None:
        assert [(card.name, card.loaded) for card in fleet.cards()] == [
            ("tiny", True), ("other", False), ("third", False)
        ]  # fmt: skip
        assert fleet.cards()[1].roles == ("embed", "rerank", "generate")
        for name in (None, "", "tiny", "other"):
            expected = Embedder.open(home / (name or "tiny"), threads=1).texts(["a river"])[0]
            np.testing.assert_allclose(await embedded(fleet, name), expected, atol=1e-5)
        assert loaded(fleet) == ["tiny", "other"]
        with pytest.raises(Refusal) as refused:
            await embedded(fleet, "gpt-4")
        assert (refused.value.status, refused.value.code) == (404, "model_not_found")

    text = run(home, main).text().decode()
    assert 'edgegeo_model_info{bundle="other"' in text
    assert 'edgegeo_model_info{bundle="third"' not in text
    assert 'edgegeo_bundle_memory_bytes{bundle="tiny"}' in text


def test_a_gallery_built_since_the_start_is_served_after_a_reload(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEGEO_HOME", str(tmp_path / "data"))

    async def main(fleet: Fleet) -> None:
        async with fleet.use("third") as serving:
            assert serving.engine.gallery is None
        copytree(home / "tiles", default_gallery("third"))
        report = await fleet.reload("third")
        assert (report.changed, report.gallery_tiles) == (True, 12)

    run(home, main, ("tiny", "third"))


def test_many_first_visitors_open_a_bundle_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    load = Engine.load

    def counted(bundle: Path, *rest: Any) -> Engine:
        opened.append(bundle)
        return load(bundle, *rest)

    async def main(fleet: Fleet) -> None:
        monkeypatch.setattr(Engine, "load", counted)
        # One of them leaves: what it has begun goes on for the others.
        jobs = [asyncio.ensure_future(embedded(fleet, "other")) for _ in range(6)]
        await asyncio.sleep(0.01)
        jobs[0].cancel()
        rows = await asyncio.gather(*jobs[1:])
        assert all(np.array_equal(row, rows[0]) for row in rows)

    run(home, main)
    assert opened == [home / "other"]


def test_the_least_recently_used_idle_bundle_makes_room(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three bundles of a few hundred kB: what they take is set, as growth of so little is not measurable.
    monkeypatch.setattr(fleet_module, "resident_bytes", lambda: 0)
    load = Engine.load

    def sized(*given: Any) -> Engine:
        engine = load(*given)
        engine.bytes = 10 * MB
        return engine

    monkeypatch.setattr(Engine, "load", sized)

    rewritten(home / "tiny", home / "fourth", name="fourth")

    async def main(fleet: Fleet) -> None:
        for berth in fleet._berths:
            berth.memory = 10 * MB
        for name in ("other", "third", "other"):
            await embedded(fleet, name)
        assert loaded(fleet) == ["tiny", "other", "third"]
        await embedded(fleet, "fourth")
        assert loaded(fleet) == ["tiny", "other", "fourth"]
        await embedded(fleet, "third")
        assert loaded(fleet) == ["tiny", "third", "fourth"]
        async with fleet.use("third") as serving, fleet.use("fourth"):
            # In use, so neither of them nor the default may go.
            with pytest.raises(Refusal) as refused:
                await embedded(fleet, "other")
            assert (refused.value.status, refused.value.code) == (503, "out_of_memory")
            assert refused.value.headers is not None
            assert int(refused.value.headers["retry-after"]) > 0
            assert (await serving.embed(["a river"]))[0].shape[0] == 1
            gone = weakref.ref(serving.engine.locator.model)
        await embedded(fleet, "other")
        assert loaded(fleet) == ["tiny", "other", "fourth"]
        del serving
        assert await is_gone(gone)

    run(home, main, names=("tiny", "other", "third", "fourth"), memory_budget_mb=35)


def test_a_budget_below_the_default_bundle_does_not_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = iter((0, 300 * MB))
    monkeypatch.setattr(fleet_module, "resident_bytes", lambda: next(grown))

    async def main(fleet: Fleet) -> None:
        raise AssertionError("it has started")

    with pytest.raises(ServerError, match="takes 300 MB, more than the memory budget of 100 MB"):
        run(home, main, names=("tiny",), memory_budget_mb=100)


def test_two_bundles_of_one_name_or_a_missing_one_do_not_start(home: Path) -> None:
    copytree(home / "tiny", home / "again")

    async def main(fleet: Fleet) -> None:
        raise AssertionError("it has started")

    with pytest.raises(ServerError, match="two bundles are named 'tiny'"):
        run(home, main, names=("tiny", "again"))
    with pytest.raises(BundleError, match="no bundle at"):
        run(home, main, names=("tiny", "nowhere"))


def test_a_reload_swaps_the_bundle_and_drops_nobody(home: Path) -> None:
    async def main(fleet: Fleet) -> None:
        before = await embedded(fleet, None)
        async with fleet.use() as old:
            gone = weakref.ref(old.engine.locator.model)
            rewritten(home / "other", home / "tiny", name="tiny")
            rmtree(home / "tiles")
            Gallery.build(
                home / "tiles",
                [("only", 1.0, 2.0, Image.new("RGB", (64, 64), (10, 90, 40)))],
                Embedder.open(home / "tiny", threads=1),
            )
            report = await fleet.reload()
            assert report.changed
            assert report.gallery_tiles == 1
            assert report.fingerprint == open_bundle(home / "tiny").fingerprint
            # Whoever holds the old one still has it whole; whoever comes now has the new one.
            np.testing.assert_allclose((await old.embed(["another river"]))[0][0], embed_of(old, "another river"))
            np.testing.assert_allclose((await old.embed(["a river"]))[0][0], before, atol=1e-6)
            async with fleet.use() as new:
                assert new is not old
                assert new.engine.thumbnail("only") is not None
            expected = Embedder.open(home / "tiny", threads=1).texts(["a river"])[0]
            np.testing.assert_allclose(await embedded(fleet, None), expected, atol=1e-5)
        del old
        assert await is_gone(gone)
        assert not (await fleet.reload()).changed

    text = run(home, main).text()
    assert b'edgegeo_reloads_total{result="done"} 2.0' in text


def embed_of(serving: Any, text: str) -> np.ndarray:
    row: np.ndarray = serving.engine.locator.embedder.texts([text])[0]
    return row


@pytest.mark.parametrize("fault", ["missing", "altered", "wrong answers", "another gallery"])
def test_a_reload_that_fails_leaves_the_old_one_serving(home: Path, fault: str) -> None:
    def damage() -> type[EdgegeoError]:
        if fault == "missing":
            rmtree(home / "tiny")
        elif fault == "altered":
            weights = home / "tiny" / "embed_tokens.npy"
            data = bytearray(weights.read_bytes())
            data[-1] ^= 1
            weights.write_bytes(bytes(data))
        elif fault == "wrong answers":
            # Sound files, but the golden answers are another model's.
            golden = (home / "other" / "golden.npz").read_bytes()
            with staging(home / "tiny") as folder:
                copytree(home / "tiny", folder, dirs_exist_ok=True)
                (folder / "edgegeo.json").unlink()
                (folder / "golden.npz").write_bytes(golden)
                publish(folder, open_bundle(home / "tiny").manifest, home / "tiny")
        else:
            rewritten(home / "other", home / "tiny", name="tiny")
            return GalleryError
        return BundleError

    async def main(fleet: Fleet) -> None:
        before = await embedded(fleet, None)
        wanted = damage()
        with pytest.raises(wanted):
            await fleet.reload()
        np.testing.assert_array_equal(await embedded(fleet, None), before)
        assert loaded(fleet) == ["tiny"]

    text = run(home, main, cache_mb=0).text()
    assert b'edgegeo_reloads_total{result="failed"} 1.0' in text


def test_requests_go_on_while_a_bundle_is_reloaded_again_and_again(home: Path) -> None:
    async def main(fleet: Fleet) -> None:
        expected = await embedded(fleet, None)
        ended = False
        served = 0

        async def client() -> None:
            nonlocal served
            while not ended:
                np.testing.assert_allclose(await embedded(fleet, None), expected, atol=1e-6)
                served += 1

        clients = [asyncio.ensure_future(client()) for _ in range(4)]
        for _ in range(3):
            await fleet.reload()
        ended = True
        await asyncio.gather(*clients)
        assert served > 8

    run(home, main, cache_mb=0)


def test_a_refreshed_gallery_shares_the_model_and_spares_who_reads_the_old_one(home: Path) -> None:
    async def main(fleet: Fleet) -> None:
        async with fleet.use() as old:
            delete_tiles(home / "tiles", ["test-00003"])
            await fleet.refresh_gallery()
            assert old.engine.thumbnail("test-00003") is not None
            async with fleet.use() as new:
                assert new.engine.thumbnail("test-00003") is None
                assert new.engine.gallery is not None
                assert len(new.engine.gallery) == 11
                assert new.engine.locator.model is old.engine.locator.model
        await fleet.refresh_gallery("other")  # not open: nothing to do
        assert loaded(fleet) == ["tiny"]

    run(home, main)
