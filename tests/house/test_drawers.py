"""What lies in the drawers is used, or fits what it is for."""

import configparser
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_systemd_unit_calls_serve_with_flags_it_has() -> None:
    from typer.main import get_command

    from edgegeo.cli.main import build_app

    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "runtime" / "edgegeo.service")
    program, verb, *words = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "edgegeo"
    serve = get_command(build_app()).commands[verb]  # type: ignore[attr-defined]
    flags = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= flags


def test_jetpack_pins_are_the_lean_runtime_only() -> None:
    pins = {
        line.split("==")[0].lower()
        for line in (ROOT / "runtime" / "jetpack6.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert {"numpy", "pillow", "tokenizers", "onnxruntime", "fastapi"} <= pins
    assert not pins & {"torch", "transformers", "peft", "onnx", "scipy", "safetensors"}
