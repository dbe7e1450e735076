"""edgegeo compile and edgegeo lint: one clear line for whatever is wrong, honest words for what was not run."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgegeo.bundle import Roles, open_bundle, publish
from edgegeo.runtime.engines import driver


@pytest.fixture
def plain_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle for TensorRT with a vision tower and a head, both in standard operators."""
    folder = tmp_path / "draft"
    shutil.copytree(tiny_bundle, folder)
    manifest = open_bundle(tiny_bundle).manifest
    parts = {name: part for name, part in manifest.components.items() if name != "trunk"}
    for file in (folder / "onnx").glob("decoder*"):
        file.unlink()
    made = replace(manifest, dialect="trt", target="tensorrt", components=parts, roles=Roles(), name="plain")
    return publish(folder, made, tmp_path / "plain").path


@pytest.fixture
def whole_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that says it is for TensorRT, whose trunk has an operator of onnxruntime's own."""
    folder = tmp_path / "draft"
    shutil.copytree(tiny_bundle, folder)
    made = replace(open_bundle(tiny_bundle).manifest, dialect="trt", target="tensorrt")
    return publish(folder, made, tmp_path / "whole").path


def test_engines_are_built_and_checked_on_a_gpu(cli: Any, home: Path, plain_bundle: Path, simulated_gpu: Path) -> None:
    said = cli("compile", plain_bundle)
    assert said.code == 0, said
    assert "TensorRT 10.3.0.30 on Simulated Orin, sm_87, 8 SMs" in said.out
    assert "2 engines" in said.out
    assert "loaded, and every golden output repeated" in said.out
    assert len(list(home.rglob("*.plan"))) == 2
    again = cli("compile", plain_bundle, "--json").json
    assert again["executed"] is True
    assert {one["seconds"] for one in again["engines"]} == {0}
    wider = cli("compile", plain_bundle, "--batch", 64)
    assert "head: the engine of 'head' was built for something else: the ranges of shapes (" in wider.err
    assert cli("verify", plain_bundle, "--provider", "tensorrt").code == 0
    assert cli("verify", plain_bundle, "--provider", "auto").code == 0


def test_what_compile_refuses(
    cli: Any, tiny_bundle: Path, plain_bundle: Path, whole_bundle: Path, simulated_gpu: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert cli("compile", tiny_bundle).refused().endswith("export it again with --target tensorrt")
    refused = cli("compile", whole_bundle).refused()
    assert "refuses decoder_model_merged.onnx (node l0.n1 (SimplifiedLayerNormalization): no importer" in refused
    assert "--batch must be between 1 and 4096, not 0" in cli("compile", plain_bundle, "--batch", 0).refused()
    assert "unknown library 'x'" in cli("compile", plain_bundle, "--library", "x").refused()
    assert "builds for the device it runs on" in cli("compile", plain_bundle, "--no-run").refused()
    assert "was built for cpu" in cli("verify", tiny_bundle, "--provider", "tensorrt").refused()
    monkeypatch.setattr("edgegeo.field.hardware.read_memory", lambda root: replace_memory(100.0))
    assert "100 MB are available" in cli("compile", plain_bundle).refused()
    assert cli("compile", plain_bundle, "--force").code == 0
    monkeypatch.setattr(driver, "LIBRARIES", ("libcuda-of-no-machine.so",))
    for words in (("compile", plain_bundle, "--force"), ("verify", plain_bundle, "--provider", "tensorrt")):
        assert "no NVIDIA driver on this machine" in cli(*words).refused()
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    for words in (("compile", plain_bundle), ("verify", plain_bundle, "--provider", "tensorrt")):
        assert "TensorRT is not installed; on a Jetson it comes with JetPack" in cli(*words).refused()
    assert "unknown device 'tpu'; use cpu, cuda, tensorrt or auto" in cli(
        "verify", plain_bundle, "--provider", "tpu").refused()  # fmt: skip


def replace_memory(available: float) -> object:
    from edgegeo.field.hardware import Memory

    return Memory(8000.0, available, 0.0, 0.0, float("inf"))


def test_lint(cli: Any, plain_bundle: Path, whole_bundle: Path, tmp_path: Path) -> None:
    said = cli("lint", plain_bundle, "--target", "tensorrt-modern")
    assert said.code == 0
    assert "2 graphs, no violations of what TensorRT 10.15 takes" in said.out
    opset = cli("lint", plain_bundle, "--json").json["files"]
    assert {one["rule"] for violations in opset.values() for one in violations} == {"opset"}
    broken = cli("lint", whole_bundle, "--json")
    assert broken.code == 2
    found = [one for file in broken.json["files"].values() for one in file]
    assert ("operator", "l0.att") in {(one["rule"], one["node"]) for one in found}
    graph = whole_bundle / "onnx" / "decoder_model_merged.onnx"
    assert "breaks rules of TensorRT 10.3 (operator, opset" in cli("lint", graph).err
    assert "knows no target 'orin'; use tensorrt or tensorrt-modern" in cli("lint", graph, "--target", "orin").refused()
    assert "none.onnx can't be read (No such file" in cli("lint", tmp_path / "none.onnx").refused()
    assert "no bundle at" in cli("lint", tmp_path / "none").refused()
    assert "is a file; a bundle is a folder" in cli("lint", whole_bundle / "edgegeo.json").refused()
    (tmp_path / "text.onnx").write_text("text")
    assert "is no valid ONNX graph" in cli("lint", tmp_path / "text.onnx").refused()


def test_profiles_by_name_and_by_file(cli: Any, plain_bundle: Path, simulated_gpu: Path, tmp_path: Path) -> None:
    """A flag goes before the profile; what a file has wrong is told in one line."""
    assert cli("compile", plain_bundle, "--profile", "orin-nano-8gb").code == 0
    said = cli("compile", plain_bundle, "--profile", "orin-nano-8gb", "--batch", 64)
    assert "the ranges of shapes (" in said.err
    refused = cli("compile", plain_bundle, "--profile", "orin").refused()
    assert refused.startswith("no engine profile 'orin'; known are agx-orin-64gb, orin-nano-8gb, thor, or a TOML")
    file = tmp_path / "robot.toml"
    for text, fault in (
        ("[calls]\nbatch = {min = 4, opt = 2, max = 8}", "robot.toml.calls.batch: min 4, opt 2, max 8 must ascend"),
        ("[calls]\nbatches = {max = 8}", "unknown key 'batches'"),
        ("[calls]\nprompt = {max = 8.5}", "prompt.max must be int"),
        ("[calls]\nprompt = 8", "prompt must be a table"),
        ("[builder]\nlevel = 9", "level must be between 0 and 5, not 9"),
        ("[builder", "robot.toml: "),
    ):
        file.write_text(text)
        assert fault in cli("compile", plain_bundle, "--profile", file).refused()
    file.write_text("[calls]\nprompt = {max = 99999}")
    assert "a prompt of 99999 positions is beyond the 256" in cli("compile", plain_bundle, "--profile", file).refused()
    assert "robot2.toml can't be read" in cli("compile", plain_bundle, "--profile", tmp_path / "robot2.toml").refused()


@pytest.mark.trt
def test_plans_on_a_machine_without_a_gpu(cli: Any, plain_bundle: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install 'edgegeo[rtx]')")
    said = cli("compile", plain_bundle, "--no-run", "--library", "tensorrt-rtx")
    assert said.code == 0, said
    assert "built, but not executed and not checked" in said.out
    assert "there already" in cli("compile", plain_bundle, "--no-run").out
