"""`edgegeo compile`, whole, on a simulated GPU: a bundle becomes engines that are checked and used."""

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from engine_simulator import simulated_tensorrt

from edgegeo.bundle import Bundle, open_bundle, publish, staging
from edgegeo.errors import BundleError, DeviceError, EngineError, InputError, VerificationError
from edgegeo.export.pipeline import export_source
from edgegeo.export.source import open_source
from edgegeo.recipe import preset
from edgegeo.runtime import Embedder, Model
from edgegeo.runtime.engines import driver
from edgegeo.runtime.engines.compiling import Request, compile_bundle
from edgegeo.runtime.engines.session import EngineSession
from edgegeo.runtime.engines.shapes import Limits
from edgegeo.runtime.verify import verify_bundle

PLENTY = 1e6
SMALL = Request(Limits().at_most(4))


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    export_source(open_source(checkpoint, method="slq"), preset("int8", "tensorrt"), out, places=0)
    return open_bundle(out)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGEO_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("simulated_gpu")
def test_engines_are_built_checked_kept_and_used(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Model(bundle, provider="auto").provider == "cpu"
    with pytest.raises(EngineError, match=r"there is no engine of 'vision'.*run: edgegeo compile"):
        Embedder.open(bundle, provider="tensorrt").images([bytes_of_a_picture()])
    stages: list[str] = []
    first = compile_bundle(bundle, SMALL, PLENTY, progress=lambda stage, done, total: stages.append(stage))
    assert first.executed
    assert {check.name for check in first.checks} >= {"embed_text", "embed_image", "yes_no_margin", "answer_ids"}
    assert {one.component for one in first.engines} == set(bundle.manifest.components)
    assert all(one.seconds > 0 and one.mb > 0 for one in first.engines)
    assert "run the golden inputs" in stages
    assert first.chip == "Simulated Orin, sm_87, 8 SMs"

    again = compile_bundle(bundle, SMALL, PLENTY)
    assert all(one.seconds == 0 and not one.why for one in again.engines)
    assert all(one.why == "asked for" for one in compile_bundle(bundle, replace(SMALL, rebuild=True), PLENTY).engines)

    model = Model(bundle, provider="auto")
    assert model.provider == "tensorrt"
    assert isinstance(model.session("trunk"), EngineSession)
    assert verify_bundle(bundle, provider="tensorrt").passed

    wider = compile_bundle(bundle, Request(Limits().at_most(8)), PLENTY)
    assert {one.why.partition(" (")[0] for one in wider.engines if one.why} == {
        "the engine of 'trunk' was built for something else: the ranges of shapes",
        "the engine of 'trunk_generate' was built for something else: the ranges of shapes",
    }

    monkeypatch.setitem(sys.modules, "tensorrt", simulated_tensorrt("10.16.2.1"))
    with pytest.raises(EngineError, match=r"the library \(TensorRT 10\.3\.0\.30, now TensorRT 10\.16\.2\.1\)"):
        Embedder.open(bundle, provider="tensorrt").texts(["a green field"])
    newer = compile_bundle(bundle, SMALL, PLENTY)
    assert newer.removed >= len(bundle.manifest.components)
    assert all("the library" in one.why for one in newer.engines)


@pytest.mark.usefixtures("simulated_gpu")
def test_a_damaged_engine_is_named_and_built_again(bundle: Bundle) -> None:
    folder = Path(compile_bundle(bundle, SMALL, PLENTY).folder)
    plan = next(folder.glob("head-*.plan"))
    plan.write_bytes(plan.read_bytes()[:-100])
    with pytest.raises(EngineError, match=r"was cut off; run: edgegeo compile"):
        Model(bundle, provider="tensorrt").session("head")
    report = compile_bundle(bundle, SMALL, PLENTY)
    (mended,) = (one for one in report.engines if one.why)
    assert mended.component == "head"
    assert "was cut off" in mended.why
    # Whole, with a record that fits, and yet none of TensorRT's: what a foreign tool or a faulty disk leaves.
    record = next(folder.glob("head-*.json"))
    plan.write_bytes(b"SIMULATED-PLAN\0" + b'{"version": "9"}\0')
    data = json.loads(record.read_text())
    content = plan.read_bytes()
    data |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    record.write_text(json.dumps(data))
    assert "refuses the engine" in next(one.why for one in compile_bundle(bundle, SMALL, PLENTY).engines if one.why)


def varied(bundle: Bundle, words: str, place: Path) -> Bundle:
    """A bundle of the same name at `place` whose vision tower is another file that computes the same."""
    with staging(place) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        file = folder / bundle.manifest.components["vision"].file
        graph = onnx.load(file, load_external_data=False)
        graph.doc_string = words
        onnx.save(graph, file)
        return publish(folder, bundle.manifest, place)


@pytest.mark.usefixtures("simulated_gpu")
def test_engines_go_when_no_bundle_of_the_name_has_their_graph(bundle: Bundle, tmp_path: Path) -> None:
    mine, namesake = varied(bundle, "mine", tmp_path / "mine"), varied(bundle, "its", tmp_path / "its")
    for one, built in ((mine, set(bundle.manifest.components)), (namesake, {"vision"})):
        report = compile_bundle(one, SMALL, PLENTY)
        assert {engine.component for engine in report.engines if engine.why} == built
        assert report.removed == 0

    replaced = varied(bundle, "mine again", tmp_path / "mine")
    assert compile_bundle(replaced, SMALL, PLENTY).removed == 1
    for one in (replaced, namesake):
        assert verify_bundle(one, provider="tensorrt").passed
    shutil.rmtree(namesake.path)
    assert compile_bundle(replaced, SMALL, PLENTY).removed == 1
    assert len(list((tmp_path / "home").rglob("*.plan"))) == len(bundle.manifest.components)


@pytest.mark.usefixtures("simulated_gpu")
def test_engines_that_compute_something_else_are_removed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EngineSession.execute

    def wrong(self: EngineSession, *given: object) -> object:
        return [-value for value in real(self, *given)]  # type: ignore[arg-type]

    monkeypatch.setattr(EngineSession, "execute", wrong)
    with pytest.raises(VerificationError, match=r"compute something else.*embed_text.*they were removed"):
        compile_bundle(bundle, SMALL, PLENTY)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.plan"))


def test_refusals(bundle: Bundle, tiny_bundle: Path, simulated_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="was built for cpu; export it again with --target tensorrt"):
        compile_bundle(open_bundle(tiny_bundle), SMALL, PLENTY)
    with pytest.raises(DeviceError, match=r"takes about \d+ MB and 300 MB are available; stop other.*--force"):
        compile_bundle(bundle, SMALL, 300.0)
    assert compile_bundle(bundle, replace(SMALL, force=True), 300.0).executed
    with pytest.raises(InputError, match=r"TensorRT 10.* builds for the device it runs on"):
        compile_bundle(bundle, replace(SMALL, run=False), PLENTY)
    with pytest.raises(InputError, match="a prompt of 9999 positions is beyond the 384 that the model reads"):
        compile_bundle(bundle, Request(Limits().at_most(length=9999)), PLENTY)
    with pytest.raises(DeviceError, match="built for cpu; use --provider cpu"):
        Model(open_bundle(tiny_bundle), provider="tensorrt")

    monkeypatch.setattr(driver, "LIBRARIES", ("libcuda-of-no-machine.so",))
    with pytest.raises(DeviceError, match="no NVIDIA driver on this machine"):
        compile_bundle(bundle, SMALL, PLENTY)
    assert Model(bundle, provider="auto").provider == "cpu"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DeviceError, match="TensorRT is not installed"):
        compile_bundle(bundle, replace(SMALL, library="tensorrt"), PLENTY)
    with pytest.raises(DeviceError, match=r"no NVIDIA driver|TensorRT is not installed"):
        Model(bundle, provider="tensorrt")


@pytest.mark.trt
def test_plans_without_a_gpu(bundle: Bundle) -> None:
    """TensorRT-RTX itself: builds here, is honest about it, and its plans are found again."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install 'edgegeo[rtx]')")
    request = replace(SMALL, run=False, library="tensorrt-rtx")
    report = compile_bundle(bundle, request, PLENTY)
    assert not report.executed
    assert report.chip == ""
    assert {one.mb > 0 for one in report.engines} == {True}
    assert not any(one.why for one in compile_bundle(bundle, request, PLENTY).engines)


def bytes_of_a_picture() -> bytes:
    from edgegeo.evaluate import planet_scenes

    return planet_scenes(1, "validation")[0].photo
