"""Engines on disk: keys that say what differs, plans that were cut off or altered, one writer at a time."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgegeo.errors import EngineError
from edgegeo.runtime.engines.building import Built
from edgegeo.runtime.engines.key import EngineKey, system
from edgegeo.runtime.engines.shapes import Span
from edgegeo.runtime.engines.store import EngineStore, Record

KEY = EngineKey("a" * 64, "TensorRT 10.3.0.30", "Orin, sm_87, 8 SMs", "Linux aarch64, L4T R36.4.0", "[]", "{}", "0.1.0")
PROFILES = ({"batch": Span(1, 1, 4), "rows": Span(0, 2, 8)},)
DIMS: dict[str, tuple[int | str, ...]] = {"x": ("batch", "rows", 64), "scalar": ()}


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def write(store: EngineStore, key: EngineKey = KEY, component: str = "trunk", plan: bytes = b"plan" * 100) -> Record:
    with store.locked():
        return store.write(component, key, Built(memoryview(plan), dict(DIMS)), PROFILES, ("/bundles/mine",))


def test_what_is_written_is_read_back(store: EngineStore) -> None:
    record = write(store)
    found = store.find("trunk", KEY)
    assert found == record
    assert found.dims == DIMS
    assert found.profiles == PROFILES
    with store.plan(found) as plan:
        assert bytes(plan) == b"plan" * 100
    assert store.find("vision", KEY) is None
    assert not list(store.folder.glob(".*.part"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"graph": "b" * 64}, "the graph (aaaaaaaa, now bbbbbbbb)"),
        ({"library": "TensorRT 10.16.2.1"}, "the library (TensorRT 10.3.0.30, now TensorRT 10.16.2.1)"),
        ({"chip": "Thor, sm_110, 20 SMs"}, "the chip (Orin, sm_87, 8 SMs, now Thor, sm_110, 20 SMs)"),
        ({"system": "Linux aarch64, L4T R38.2.0"}, "the system (Linux aarch64, L4T R36.4.0, now "),
        ({"profiles": '[{"batch": 8}]'}, "the ranges of shapes ([], now "),
        ({"flags": '{"level": 5}'}, "the builder's settings ({}, now "),
        ({"exporter": "0.2.0"}, "the exporter (0.1.0, now 0.2.0)"),
    ],
)
def test_a_stale_engine_is_told_by_the_field_that_differs(store: EngineStore, change: Any, said: str) -> None:
    write(store)
    write(store, replace(KEY, chip="another", flags="another", graph="c" * 64))  # farther away
    wanted = replace(KEY, **change)
    assert wanted.digest != KEY.digest
    assert store.find("trunk", wanted) is None
    assert store.why_not("trunk", wanted).startswith(f"the engine of 'trunk' was built for something else: {said}")


def test_which_engines_can_be_used(store: EngineStore) -> None:
    with pytest.raises(EngineError, match=r"there is no engine of 'trunk' in .*; run: edgegeo compile"):
        store.usable("trunk", KEY, "Orin")
    record = write(store)
    with pytest.raises(EngineError, match="never passed its check on Orin; run: edgegeo compile"):
        store.usable("trunk", KEY, "Orin")
    with store.locked():
        store.mark(record, "Orin")
    other_shapes = replace(KEY, profiles="[1]", flags="2", exporter="9")
    assert store.usable("trunk", other_shapes, "Orin").passed == "Orin"
    with pytest.raises(EngineError, match="never passed its check on Thor"):  # a portable plan, taken along
        store.usable("trunk", KEY, "Thor")
    for field in ("graph", "library", "chip", "system"):
        with pytest.raises(EngineError, match="was built for something else"):
            store.usable("trunk", replace(KEY, **{field: "another"}), "Orin")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def altered(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)


def gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(cut, "has 393 bytes instead of 400: it was cut off"), (altered, "differs from its recorded hash"),
     (gone, "can't be read")],
)  # fmt: skip
def test_damaged_plans(store: EngineStore, spoil: Callable[[Path], None], said: str) -> None:
    record = write(store)
    spoil(store.folder / f"{record.stem}.plan")
    with pytest.raises(EngineError, match=rf"{said}.*run: edgegeo compile"), store.plan(record):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 99}'])
def test_damaged_records_are_as_good_as_none(store: EngineStore, text: str) -> None:
    record = write(store)
    (store.folder / f"{record.stem}.json").write_text(text)
    assert store.records() == []
    with store.locked():
        store.drop_stale({"trunk": KEY}, lambda one: True)
    assert not list(store.folder.glob("*.plan"))  # a plan without a record is none


def test_a_record_that_names_another_plan(store: EngineStore) -> None:
    """Copied from elsewhere, or edited: the name of the files follows from the key."""
    record = write(store)
    file = store.folder / f"{record.stem}.json"
    data = json.loads(file.read_text())
    data["key"]["chip"] = "Thor"
    file.write_text(json.dumps(data))
    assert store.records() == []


def test_names_that_would_leave_the_folder(store: EngineStore) -> None:
    record = write(store, component="../../etc/x")
    assert (store.folder / f"{record.stem}.plan").is_file()
    assert "/" not in record.stem
    assert ".." not in record.stem


def test_stale_engines_of_this_machine_are_removed_and_others_stay(store: EngineStore) -> None:
    write(store, replace(KEY, graph="0" * 64))
    write(store, replace(KEY, library="TensorRT 8"))
    write(store, component="trunk_embed")  # of a bundle that had one more
    used = write(store, replace(KEY, graph="1" * 64))
    kept = [write(store), write(store, replace(KEY, chip="Thor", graph="0" * 64)), used,
            write(store, replace(KEY, profiles="[2]")), write(store, component="vision")]  # fmt: skip
    with store.locked():
        assert len(store.drop_stale({"trunk": KEY, "vision": KEY}, lambda one: one.key.graph == "1" * 64)) == 3
    assert {one.stem for one in store.records()} == {one.stem for one in kept}
    assert {file.stem for file in store.folder.glob("*.plan")} == {one.stem for one in kept}


def test_a_plan_knows_the_bundles_it_is_for(store: EngineStore) -> None:
    record = write(store)
    with store.locked():
        for name in ("/bundles/other", "/bundles/mine"):
            record = store.claim(record, name)
        store.mark(record, "Orin")
    found = store.find("trunk", KEY)
    assert found is not None
    assert found.bundles == ("/bundles/mine", "/bundles/other")
    file = store.folder / f"{found.stem}.json"
    data = json.loads(file.read_text())
    del data["bundles"]  # as older versions wrote it
    file.write_text(json.dumps(data))
    assert store.find("trunk", KEY) == replace(found, bundles=())


def test_one_writer_at_a_time(store: EngineStore) -> None:
    said = r"another process compiles into .*wait for it"
    with store.locked(), pytest.raises(EngineError, match=said), store.locked():
        pass
    with store.locked():
        pass


def test_a_full_disk_leaves_what_was_there(store: EngineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    record = write(store)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match=r"No space left on device.*free some space"):
        write(store, plan=b"other")
    monkeypatch.undo()
    assert store.find("trunk", KEY) == record
    with store.plan(record) as plan:
        assert bytes(plan) == b"plan" * 100
    assert not list(store.folder.glob(".*.part"))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = EngineStore(tmp_path / "file" / "x")
    with pytest.raises(EngineError, match=r"can't write to .*EDGEGEO_HOME"), store.locked():
        pass


def test_the_system_of_a_jetson(tmp_path: Path) -> None:
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64\n")
    assert system(release).endswith(", L4T R36.4.0")
    assert "L4T" not in system(tmp_path / "none")
    release.write_text("")
    assert "L4T" not in system(release)
