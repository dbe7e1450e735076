"""Engine profiles of the drawer: each loads, fits every bundle that has a decoder, and stands by its device."""

from pathlib import Path

import pytest

from edgegeo.bundle import open_bundle
from edgegeo.errors import InputError
from edgegeo.field.device import profiles as device_profiles
from edgegeo.runtime.engines.profile import EngineProfile, engine_profiles, load_profile
from edgegeo.runtime.engines.shapes import choose, profiles


def test_every_device_has_one() -> None:
    assert set(engine_profiles()) == set(device_profiles()) == {"orin-nano-8gb", "agx-orin-64gb", "thor"}


@pytest.mark.parametrize("name", ["orin-nano-8gb", "agx-orin-64gb", "thor"])
def test_the_drawer(name: str, tiny_bundle: Path) -> None:
    made, bundle = load_profile(name), open_bundle(tiny_bundle)
    assert made != EngineProfile()
    built = profiles(bundle, "trunk", made.calls)
    one = {"batch": 1, "sequence": 1, "asked": 1, "past": 9, "total": 10}
    assert choose(built, one) == 0
    assert choose(built, one | {"batch": 32}) == 0, "all candidates of an answer are decoded together"
    assert choose(built, {"batch": made.calls.batch.max, "sequence": 20, "asked": 1, "past": 0, "total": 20}) == 2


def test_what_is_no_profile(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    assert load_profile(str(tmp_path / "empty.toml")) == EngineProfile()
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match=r"engine profile .*folder\.toml can't be read"):
        load_profile(str(tmp_path / "folder.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"bytes\.toml: 'utf-8' codec"):
        load_profile(str(tmp_path / "bytes.toml"))
