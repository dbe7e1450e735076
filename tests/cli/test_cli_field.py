"""`edgegeo doctor`, `plan` and `wheelhouse` as a person calls them."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


def test_doctor_says_what_is_there_and_what_is_not(
    cli: Any, tiny_bundle: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEGEO_PORT", "0")
    done = cli("doctor", "--json")
    found = {one["topic"]: one for one in done.json["findings"]}
    assert (done.code, done.json["ok"]) == (0, True)
    assert found["runtime"]["level"] == "ok"
    assert found["bundle"]["level"] == "warn"
    assert "edgegeo export" in found["bundle"]["remedy"]
    shutil.copytree(tiny_bundle, home / "bundles" / "pocket-int8")
    told = cli("doctor").out
    assert "every hash right" in told
    assert "edgegeo index build" in told


def test_doctor_fails_where_something_has_to_be_mended(cli: Any, tiny_bundle: Path, home: Path) -> None:
    bundle = home / "bundles" / "pocket-int8"
    shutil.copytree(tiny_bundle, bundle)
    (bundle / "tokenizer.json").write_text("{}")
    done = cli("doctor")
    assert done.code == 1
    assert any(line.startswith("fail  bundle") for line in done.out.splitlines())
    report = cli("doctor", "--json")
    assert (report.code, report.json["ok"], report.json["counts"]["fail"]) == (1, False, 1)


def test_doctor_is_quick_and_loads_no_build_side(tmp_path: Path) -> None:
    program = (
        "import json, sys\nfrom edgegeo.cli.main import run\ntry:\n    run(['doctor', '--json'])\n"
        "except SystemExit:\n    print(json.dumps([n for n in ('torch', 'transformers', 'onnx') if n in sys.modules]),"
        " file=sys.stderr)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env={"EDGEGEO_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})  # fmt: skip
    assert json.loads(done.stderr.splitlines()[-1]) == []
    # It takes half a second; the rest is for machines that do other work at the time.
    assert time.perf_counter() - start < 10


def test_plan_of_a_bundle_and_of_a_checkpoint(cli: Any, tiny_bundle: Path, home: Path) -> None:
    done = cli("plan", tiny_bundle, "--device", "orin-nano-8gb", "--json").json
    assert done["fits"]
    assert done["device"]["name"].startswith("Jetson Orin Nano 8 GB")
    assert done["total_mb"] == pytest.approx(
        sum(done["plan"]["need"][name] for name in ("weights", "kv", "activations", "overhead"))
    )
    told = cli("plan", "--device", "agx-orin-64gb", "--precision", "int4").out  # the packaged checkpoint
    assert "pocket-int4 on Jetson AGX Orin 64 GB" in told
    assert "it fits" in told
    assert "Lower bounds" in told
    more = cli("plan", "--device", "thor", "--batch", 100000).refused()
    assert "--batch" in more or "100000" in more


def test_plan_refuses_what_it_cannot_do(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    assert "no profile of a device 'toaster'" in cli("plan", "--device", "toaster").refused()
    assert "leave those flags out" in cli("plan", tiny_bundle, "--precision", "int4").refused()
    assert "no folder" in cli("plan", tmp_path / "nothing").refused()
    assert "neither edgegeo.json nor config.json" in cli("plan", tmp_path).refused()
    small = json.dumps({"model_type": "clip"})
    (tmp_path / "config.json").write_text(small)
    profile = Path(__file__).parents[2] / "runtime" / "devices" / "thor.toml"
    (tmp_path / "mine.toml").write_text(profile.read_text().replace("120000.0", "950.0"))
    told = cli("plan", tmp_path, "--device", tmp_path / "mine.toml", "--precision", "fp32").out
    assert "it does not fit" in told


def test_export_and_plan_point_at_each_other(cli: Any) -> None:
    assert "edgegeo export --plan" in " ".join(cli("plan", "--help").out.split())
    assert "edgegeo plan" in " ".join(cli("export", "--help").out.replace("│", " ").split())


def test_wheelhouse_refuses_before_it_downloads(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "wheels"
    for words, said in (
        (("--platform", "riscv64"), "unknown platform 'riscv64'"), (("--python", "3.9"), "Python '3.9'"),
        (("--glibc", "three"), "--glibc takes a version"), (("--extras", "cpu,gps"), "no extra 'gps'"),
    ):  # fmt: skip
        assert said in cli("wheelhouse", "-o", out, *words).refused()
    out.mkdir()
    assert "--force" in cli("wheelhouse", "-o", out).refused()
