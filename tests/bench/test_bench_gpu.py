"""benchmarks/on_gpu.py without a GPU: the same code runs, and says that it measured none."""

import json
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_without_a_gpu_nothing_is_measured(
    scripts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import on_gpu

    from edgegeo.runtime.engines import driver

    monkeypatch.setattr(driver, "LIBRARIES", ("libcuda-of-no-machine.so",))
    monkeypatch.setattr("sys.argv", ["on_gpu.py", "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="no GPU here: nothing was measured"):
        on_gpu.main()
    assert "no NVIDIA driver on this machine" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_disagreement_ends_it(scripts: None) -> None:
    import on_gpu

    class Same:
        def vision(self, pixels: np.ndarray) -> np.ndarray:
            return pixels

        prompts = answer = lambda self, *given: given[0]

    class Other(Same):
        def vision(self, pixels: np.ndarray) -> np.ndarray:
            return -pixels

    inputs = {name: np.ones((1, 2, 3), np.float32) for name in ("pixels", "one", "rows", "prompt", "rest")}
    report = on_gpu.Report({})
    on_gpu.compare(report, "x fp16", Same(), Same(), Same(), inputs)
    assert len(report.parity) == 4
    assert all(row["passed"] for row in report.parity)
    with pytest.raises(SystemExit, match="x fp16, vision tower, one picture: cosine -1"):
        on_gpu.compare(report, "x fp16", Other(), Same(), Same(), inputs)


@pytest.mark.slow
def test_a_dry_run(scripts: None, tmp_path: Path) -> None:
    import on_gpu

    report = on_gpu.measure(["fp32", "int8"], tmp_path, None, 1)
    assert "no GPU here" in report.facts["gpu"]
    assert {row["who"] for row in report.speed} == {
        "onnxruntime cpu fp32", "onnxruntime cpu int8", "torch eager fp32", "torch.compile fp32"
    }  # fmt: skip
    assert min(row["cosine with the CPU"] for row in report.parity) > 0.9999
    assert all("no GPU here" in row["result"] or "not installed" in row["result"] for row in report.engines)
    json.dumps(vars(report))
    assert "| vision tower, one picture |" in on_gpu.page(report)
