"""The doctor on TensorRT: absent, beside a library it does not belong to, of a version that edgegeo does not know."""

import sys
from pathlib import Path

import pytest

from edgegeo.field.engine_library import examine_tensorrt
from edgegeo.field.finding import OK, WARN, Finding, Root
from edgegeo.field.jetson import Gpu

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
ORIN = Gpu("Orin", "36.4.3", "6.2", "", {"TensorRT": "10.3.0"})
MODULE = """
class ILogger:
    class Severity:
        ERROR = INTERNAL_ERROR = 1
"""


@pytest.fixture(autouse=True)
def _no_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where neither library is installed."""
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)


def installed(site: Path, monkeypatch: pytest.MonkeyPatch, code: str, name: str = "tensorrt") -> None:
    """A module of this name and content, and nothing that was imported under the name before."""
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, name)


def only(gpu: Gpu, root: Path) -> Finding:
    [found] = examine_tensorrt(gpu, Root(root))
    sys.modules.pop("tensorrt", None)
    return found


def test_without_the_library_nothing_is_wrong(tmp_path: Path) -> None:
    found = only(Gpu("", "", "", "570.86", {}), tmp_path)
    assert (found.level, found.found) == (OK, "not installed")
    assert found.remedy.startswith("if wanted: on a Jetson it comes with JetPack")


@pytest.mark.parametrize(
    ("place", "remedy"),
    [
        ("", "sudo apt install python3-libnvinfer"),
        (f"python{HERE}", f"the system has it: make the environment with python{HERE} -m venv --system-site-packages"),
        ("python3", "the system has it: make the environment with /usr/bin/python3 -m venv --system-site-packages"),
        ("python3.99", f"for Python 3.99, this is {HERE}: make the environment with python3.99 -m venv"),
    ],
)
def test_a_library_without_its_module(tmp_path: Path, place: str, remedy: str) -> None:
    if place:
        file = tmp_path / "usr/lib" / place / "dist-packages/tensorrt/__init__.py"
        file.parent.mkdir(parents=True)
        file.write_text("")
    found = only(ORIN, tmp_path)
    assert (found.level, found.found) == (WARN, "library 10.3.0, but no Python module in this environment")
    assert remedy in found.remedy


def test_a_desktop_library_without_its_module(tmp_path: Path) -> None:
    found = only(Gpu("", "", "", "570.86", {"TensorRT": "10.15.1"}), tmp_path)
    assert found.remedy == "install the wheel tensorrt==10.15.1, or TensorRT-RTX: pip install 'edgegeo[rtx]'"


@pytest.mark.parametrize(
    ("version", "library", "level", "said", "remedy"),
    [
        ("10.3.0.30", "10.3.0", OK, "--target tensorrt only, tensorrt-modern needs 10.15", ""),
        ("10.16.1.2", "10", OK, "TensorRT 10.16.1.2, Python module", ""),
        ("10.16.1.2", "", OK, "TensorRT 10.16.1.2, Python module", ""),
        ("10.7.0.23", "10.3.0", WARN, "the library found is 10.3.0", "python3-libnvinfer, else tensorrt==10.3.0"),
        ("8.6.1", "8.6.1", WARN, "TensorRT 8.6.1 is too old", "install 10.3 or newer"),
        ("12.0.1", "12.0.1", WARN, "TensorRT 12.0.1, Python module", "edgegeo knows 10.3 to 11; install one"),
        ("unknown", "10.3.0", WARN, "TensorRT unknown is too old", "install 10.3 or newer"),
    ],
)
def test_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, library: str, level: str, said: str, remedy: str
) -> None:
    installed(tmp_path, monkeypatch, f"__version__ = {version!r}{MODULE}")
    found = only(Gpu("", "", "", "570.86", {"TensorRT": library} if library else {}), tmp_path)
    assert (found.level, bool(found.remedy)) == (level, bool(remedy))
    assert said in found.found
    assert remedy in found.remedy


def test_a_module_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = "libnvinfer.so.10: cannot open shared object file: No such file or directory"
    installed(tmp_path, monkeypatch, f"raise ImportError({fault!r})")
    found = only(ORIN, tmp_path)
    assert (found.level, found.found) == (WARN, f"TensorRT does not load ({fault})")
    assert "apt install python3-libnvinfer" in found.remedy


@pytest.mark.trt
def test_tensorrt_rtx_as_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    rtx = pytest.importorskip("tensorrt_rtx")
    found = only(Gpu("", "", "", "", {}), tmp_path)
    assert (found.level, found.found) == (OK, f"TensorRT-RTX {rtx.__version__}, Python module")
