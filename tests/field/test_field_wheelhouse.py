"""Wheelhouses from wheels made here, without a network: conditions of the other machine, tags, hashes, refusals."""

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from edgegeo.errors import DeviceError, InputError
from edgegeo.field.own_wheel import pack_installed
from edgegeo.field.wheelhouse import EXTRAS, Target, collect, make_wheelhouse, usual_pins

JETSON = Target("aarch64", "3.10")


@pytest.fixture(autouse=True)
def _no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def make_wheel(folder: Path, name: str, *needs: str, tag: str = "py3-none-any", scripts: str = "") -> Path:
    """A wheel of one empty module."""
    folder.mkdir(parents=True, exist_ok=True)
    home = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nProvides-Extra: more\nProvides-Extra: cpu\n"
    files = {
        f"{name}/__init__.py": "def main():\n    print('here')\n",
        f"{home}/METADATA": metadata + "".join(f"Requires-Dist: {need}\n" for need in needs),
        f"{home}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if scripts:
        files[f"{home}/entry_points.txt"] = f"[console_scripts]\n{scripts}\n"
    record = ""
    path = folder / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{file},sha256={digest},{len(text)}\n"
        wheel.writestr(f"{home}/RECORD", f"{record}{home}/RECORD,,\n")
    return path


def test_conditions_and_tags_are_those_of_the_other_machine(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    make_wheel(shelf, "older", "deeper")
    make_wheel(shelf, "deeper")
    make_wheel(shelf, "newer")
    make_wheel(shelf, "jetson")
    make_wheel(shelf, "desktop")
    make_wheel(shelf, "native", tag="cp310-cp310-manylinux_2_28_aarch64")
    make_wheel(shelf, "native", tag="cp311-cp311-manylinux_2_28_aarch64")
    make_wheel(shelf, "native", tag="cp310-cp310-manylinux_2_28_x86_64")
    root = make_wheel(
        tmp_path / "own", "root", "native", "older; python_version < '3.11'", "newer; python_version >= '3.11'",
        "jetson; platform_machine == 'aarch64'", "desktop; platform_machine == 'x86_64' and extra == 'more'",
    )  # fmt: skip
    found = collect(root, ("more",), JETSON, tmp_path / "out", sources=[shelf])
    assert {wheel.name for wheel in found} == {"root", "native", "older", "deeper", "jetson"}
    assert "native-1.0-cp310-cp310-manylinux_2_28_aarch64.whl" in {wheel.file for wheel in found}
    for wheel in found:
        content = (tmp_path / "out" / wheel.file).read_bytes()
        assert (wheel.bytes, wheel.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_package_without_a_wheel_for_that_machine(tmp_path: Path) -> None:
    make_wheel(tmp_path / "shelf", "native", tag="cp310-cp310-manylinux_2_39_aarch64")
    root = make_wheel(tmp_path / "own", "root", "native")
    with pytest.raises(InputError, match=r"no wheel of native for Python 3\.10 on aarch64.*--find-links"):
        collect(root, (), JETSON, tmp_path / "out", sources=[tmp_path / "shelf"])
    newer = Target("aarch64", "3.10", glibc=39)
    assert len(collect(root, (), newer, tmp_path / "newer", sources=[tmp_path / "shelf"])) == 2
    gpu = make_wheel(tmp_path / "own", "gpu", "onnxruntime-gpu>=1.23")
    with pytest.raises(InputError, match="take NVIDIA's wheel for this JetPack"):
        collect(gpu, (), JETSON, tmp_path / "gpu")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    root = make_wheel(tmp_path, "root", "anything")
    with pytest.raises(DeviceError, match="no package index answers"):
        collect(root, (), JETSON, tmp_path / "out")


@pytest.mark.slow
def test_a_wheelhouse_for_this_machine_is_really_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    make_wheel(shelf, "needed")

    def own(folder: Path) -> Path:
        return make_wheel(folder, "edgegeo", "needed; extra == 'cpu'", scripts="edgegeo = edgegeo:main")

    monkeypatch.setattr("edgegeo.field.wheelhouse.make_own_wheel", own)
    here = Target(os.uname().machine, f"{sys.version_info[0]}.{sys.version_info[1]}")
    out = tmp_path / "wheels"
    made = make_wheelhouse(out, here, ("cpu",), sources=[shelf])
    assert made.installed
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ["install.sh", "requirements.txt", *(wheel.file for wheel in made.wheels)]
    )
    lines = (out / "requirements.txt").read_text().splitlines()
    assert lines[1:] == [f"{name}==1.0 --hash=sha256:{wheel.sha256}"
                         for name, wheel in zip(("edgegeo[cpu]", "needed"), made.wheels, strict=True)]  # fmt: skip
    with pytest.raises(InputError, match="exists already"):
        make_wheelhouse(out, here, ("cpu",), sources=[shelf])
    # A wheel that was altered on its way is not installed.
    make_wheel(out, "needed", "surprise")
    tampered = subprocess.run(["sh", out / "install.sh", tmp_path / "venv"], capture_output=True, text=True,
                              env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}, check=False)  # fmt: skip
    assert tampered.returncode != 0
    assert "HASH" in tampered.stderr.upper()


def test_what_is_no_wheelhouse_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for place in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(InputError, match="is not a wheelhouse"):
            make_wheelhouse(place, JETSON, ("cpu",), force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(InputError, match="can't write"):
        make_wheelhouse(tmp_path / "mine" / "thesis.txt" / "below", JETSON, ("cpu",))


def test_versions_and_wheels_that_are_not_there_are_told_before_any_download(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file of versions at \S*none"):
        make_wheelhouse(tmp_path / "out", JETSON, ("cpu",), pins=tmp_path / "none")
    with pytest.raises(InputError, match=r"no folder at \S*none"):
        make_wheelhouse(tmp_path / "out", JETSON, ("cpu",), sources=[tmp_path / "none"])
    assert not list(tmp_path.iterdir())


def test_install_refuses_another_machine(tmp_path: Path) -> None:
    from edgegeo.field.wheelhouse import _write

    other = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    for target, words in ((Target(other, "3.10"), f"for {other}"), (Target(os.uname().machine, "3.13"), "Python 3.13")):
        _write(tmp_path, (), target, ())
        done = subprocess.run(["sh", tmp_path / "install.sh", tmp_path / "venv"], capture_output=True, text=True,
                              env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}, check=False)  # fmt: skip
        assert done.returncode == 2
        assert words in done.stderr
        assert not (tmp_path / "venv").exists()


def test_the_installed_package_becomes_its_wheel_again(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "own", "edgegeo", "needed; extra == 'cpu'", scripts="edgegeo = edgegeo:main")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    again = pack_installed(PathDistribution(site / "edgegeo-1.0.dist-info"), tmp_path)
    assert again.name == wheel.name
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
        for name in first.namelist():
            if not name.endswith("RECORD"):
                assert first.read(name) == second.read(name)
    subprocess.run([*install[:-2], str(tmp_path / "twice"), str(again)], check=True, capture_output=True)
    (site / "edgegeo" / "__init__.py").unlink()
    with pytest.raises(DeviceError, match="lacks edgegeo/__init__"):
        pack_installed(PathDistribution(site / "edgegeo-1.0.dist-info"), tmp_path)


@pytest.mark.parametrize(
    ("machine", "python", "glibc", "words"),
    [("riscv64", "3.10", 35, "riscv64"), ("aarch64", "3.9", 35, "use one of"), ("aarch64", "3.10", 5, "glibc 2.5")],
)
def test_unknown_machines(machine: str, python: str, glibc: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Target(machine, python, glibc)


def test_unknown_extras_and_usual_pins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no extra 'gps'"):
        make_wheelhouse(tmp_path / "out", JETSON, ("gps",))
    assert [(usual_pins(python) or tmp_path).name for python in ("3.10", "3.12")] == ["jetpack6.txt", "constraints.txt"]


def test_every_extra_of_the_package_can_be_asked_for() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == set(EXTRAS)
