"""What lies in the drawers is used, or fits what it is for."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def unit(name: str) -> list[tuple[str, str]]:
    """The settings of a unit's or drop-in's service, in their order; a name may come again."""
    lines = (ROOT / "runtime" / name).read_text().splitlines()
    section, found = "", []
    for line in lines:
        if line.startswith("["):
            section = line
        elif line and not line.startswith("#") and section == "[Service]":
            key, _, value = line.partition("=")
            found.append((key, value))
    return found


def serve_options() -> dict[str, Any]:
    """Every flag of `edgegeo serve` and every variable."""
    from typer.main import get_command

    from edgegeo.cli.main import build_app

    serve = get_command(build_app()).commands["serve"]  # type: ignore[attr-defined]
    return {name: one for one in serve.params for name in (*one.opts, one.envvar) if isinstance(name, str)}


def test_systemd_unit_calls_serve_with_flags_and_variables_it_has() -> None:
    from edgegeo.server.settings import ADMIN_KEY_VARIABLE, KEY_VARIABLE

    known = {*serve_options(), KEY_VARIABLE, ADMIN_KEY_VARIABLE, "EDGEGEO_HOME"}
    settings = dict(unit("edgegeo.service"))
    program, verb, *words = shlex.split(settings["ExecStart"])
    assert (Path(program).name, verb) == ("edgegeo", "serve")
    assert {word for word in words if word.startswith("--")} <= known
    texts = [(ROOT / "runtime" / name).read_text() for name in ("edgegeo.service", "gpu.conf", "README.md")]
    named = set(re.findall(r"EDGEGEO_[A-Z_]+", "\n".join(texts)))
    assert {"EDGEGEO_HOST", "EDGEGEO_PROVIDER", "EDGEGEO_ADMIN_KEY"} <= named <= known


def test_the_drawer_s_readme_names_verbs_and_flags_that_exist() -> None:
    from typer.main import get_command

    from edgegeo.cli.main import build_app

    verbs = get_command(build_app()).commands  # type: ignore[attr-defined]
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "runtime" / "README.md").read_text(), re.DOTALL)
    calls = re.findall(r"(?:^|/)edgegeo ([a-z]+)(.*)$", re.sub(r"#.*", "", "\n".join(blocks)), re.MULTILINE)
    assert {"export", "lint", "plan", "index", "doctor", "compile", "wheelhouse"} <= {verb for verb, _ in calls}
    for verb, rest in calls:
        command, words = verbs[verb], rest.split()
        if hasattr(command, "commands"):
            command = command.commands[words[0]]
        known = {name for one in command.params for name in one.opts}
        assert {word for word in words if word.startswith("-")} <= known, (verb, rest)


def test_systemd_unit_leaves_the_server_the_time_it_needs() -> None:
    from edgegeo.server.process import GRACE_S

    options, settings = serve_options(), dict(unit("edgegeo.service"))
    words = shlex.split(settings["ExecStart"])
    drain, heartbeat = (float(words[words.index(name) + 1]) for name in ("--drain", "--heartbeat"))
    deadline = options["--deadline"].default
    assert isinstance(deadline, float)
    assert settings["Type"] == "notify"
    assert float(settings["TimeoutStopSec"]) > drain + GRACE_S
    assert float(settings["WatchdogSec"]) > heartbeat + deadline
    assert settings["ExecReload"].split() == ["/bin/kill", "-HUP", "$MAINPID"]


def test_systemd_knows_every_setting(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    # The program need not be installed where the tests run.
    text = (ROOT / "runtime" / "edgegeo.service").read_text().replace("/opt/edgegeo/bin/edgegeo", sys.executable)
    service = tmp_path / "edgegeo.service"
    (tmp_path / "edgegeo.service.d").mkdir()
    (tmp_path / "edgegeo.service.d" / "gpu.conf").write_text((ROOT / "runtime" / "gpu.conf").read_text())
    for content, sound in ((text, True), (text.replace("WatchdogSec", "WatchdogSecs"), False)):
        service.write_text(content)
        done = subprocess.run([analyze, "verify", str(service)], capture_output=True, text=True, check=False)
        assert ((done.returncode, done.stderr) == (0, "")) == sound, done.stderr


def test_jetpack_pins_are_the_lean_runtime_only() -> None:
    pins = {
        line.split("==")[0].lower()
        for line in (ROOT / "runtime" / "jetpack6.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert {"numpy", "pillow", "tokenizers", "onnxruntime", "fastapi"} <= pins
    assert not pins & {"torch", "transformers", "peft", "onnx", "scipy", "safetensors"}
