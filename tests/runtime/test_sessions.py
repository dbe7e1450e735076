from dataclasses import replace
from pathlib import Path

import pytest

from edgegeo.bundle import open_bundle
from edgegeo.errors import BundleError, DeviceError
from edgegeo.runtime import Model
from edgegeo.runtime import model as model_module
from edgegeo.runtime.sessions import PROVIDERS, choose_provider, default_threads, int8_saturates, open_session


def has_cuda() -> bool:
    import onnxruntime

    return PROVIDERS["cuda"] in onnxruntime.get_available_providers()


def test_a_named_device_that_is_absent_is_an_error(tiny_bundle: Path) -> None:
    if has_cuda():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match=r"'cuda' is not in this onnxruntime .* edgegeo\[gpu\]"):
        open_session(tiny_bundle / "onnx" / "lm_head.onnx", provider="cuda")
    assert choose_provider("auto") == "cpu"


def test_unknown_device_and_threads(tiny_bundle: Path) -> None:
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        choose_provider("tpu")
    with pytest.raises(DeviceError, match="threads must be at least 1"):
        open_session(tiny_bundle / "onnx" / "lm_head.onnx", threads=0)
    assert default_threads() >= 1


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"x\.onnx can't be loaded by onnxruntime"):
        open_session(tmp_path / "x.onnx")


def test_settings_reach_the_session(tiny_bundle: Path) -> None:
    session = open_session(tiny_bundle / "onnx" / "lm_head.onnx", threads=1)
    assert session.get_session_options().intra_op_num_threads == 1
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_bundle_of_another_dialect_or_target(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(tiny_bundle)
    with pytest.raises(BundleError, match="dialect 'tflite'"):
        Model(replace(bundle, manifest=replace(bundle.manifest, dialect="tflite")))
    assert Model(bundle, provider="auto").provider == "cpu"
    # As on a machine that has CUDA: the operators of a CPU bundle would fall back to the CPU there, node by node.
    monkeypatch.setattr(model_module, "choose_provider", lambda provider: provider)
    with pytest.raises(DeviceError, match="built for cpu"):
        Model(bundle, provider="cuda")


def test_exact_int8_is_asked_for_only_where_the_fast_one_overflows() -> None:
    assert int8_saturates("x86_64", frozenset({"avx2", "avx512f"}))
    assert int8_saturates("AMD64", frozenset())
    assert not int8_saturates("x86_64", frozenset({"avx2", "avx_vnni"}))
    assert not int8_saturates("x86_64", frozenset({"avx512_vnni"}))
    assert not int8_saturates("aarch64", frozenset())
