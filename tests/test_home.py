"""Where bundles and galleries lie when nobody says."""

from pathlib import Path

import pytest

from edgegeo.errors import InputError
from edgegeo.home import data_home, default_bundle, default_gallery, find_bundle


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("EDGEGEO_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_home() == tmp_path / ".local" / "share" / "edgegeo"
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert data_home() == Path("/xdg/edgegeo")
    monkeypatch.setenv("EDGEGEO_HOME", "~/own")
    assert data_home() == tmp_path / "own"


def test_no_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(InputError, match="EDGEGEO_HOME"):
        data_home()


def test_bundles_by_name_and_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEGEO_HOME", str(tmp_path / "own"))
    assert find_bundle(None) == default_bundle() == tmp_path / "own/bundles/pocket-int8"
    assert default_bundle("int4", "mine").name == "mine-int4"
    assert default_gallery(default_bundle()) == tmp_path / "own/galleries/planet-pocket-int8"
    assert find_bundle("mine-int4") == Path("mine-int4")  # nowhere: open_bundle will say so
    default_bundle("int4", "mine").mkdir(parents=True)
    assert find_bundle("mine-int4") == default_bundle("int4", "mine")
    assert find_bundle("./mine-int4") == default_bundle("int4", "mine")
    (tmp_path / "mine-int4").mkdir()
    assert find_bundle("mine-int4") == Path("mine-int4")  # what lies here comes first
    assert find_bundle("~/x") == tmp_path / "x"
