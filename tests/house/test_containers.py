"""Container files: what they name exists, and what they run is what the server understands."""

import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "runtime").glob("*.Dockerfile"))


def steps(file: Path) -> list[tuple[str, str]]:
    """Instructions in their order, continued lines joined, comments left out."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def of(file: Path, name: str) -> list[str]:
    return [rest for word, rest in steps(file) if word == name]


def options(verb: str) -> dict[str, Any]:
    from typer.main import get_command

    from edgegeo.cli.main import build_app

    command = get_command(build_app()).commands[verb]  # type: ignore[attr-defined]
    return {name: one for one in command.params for name in (*one.opts, *([one.envvar] if one.envvar else []))}


def environment(file: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for line in of(file, "ENV") for word in shlex.split(line))


def health_check(file: Path) -> list[str]:
    (line,) = of(file, "HEALTHCHECK")
    words: list[str] = json.loads(line[line.index("[") :])
    return words


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [file.name for file in FILES] == ["jetpack6.Dockerfile", "jetpack7.Dockerfile", "x86.Dockerfile"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_container_serves_with_flags_and_variables_that_exist(file: Path) -> None:
    known = options("serve")
    (entry,), (command,) = of(file, "ENTRYPOINT"), of(file, "CMD")
    verb, *words = json.loads(command)
    assert (json.loads(entry), verb) == (["/opt/edgegeo/bin/edgegeo"], "serve")
    assert {word for word in words if word.startswith("--")} <= set(known)
    assert words[words.index("--api-key-file") + 1] == "/run/secrets/edgegeo_api_key"
    variables = environment(file)
    assert {name for name in variables if name.startswith("EDGEGEO_")} <= {*known, "EDGEGEO_HOME"}
    assert variables["EDGEGEO_PORT"] == of(file, "EXPOSE")[0] == str(known["--port"].default)
    assert all(word.startswith(f"{variables['EDGEGEO_HOME']}/") for word in words if word.startswith("/data"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_container_has_no_rights_and_copies_nothing_that_is_not_there(file: Path) -> None:
    user = of(file, "USER")[-1]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert [word for word, _ in steps(file)].index("USER") < [word for word, _ in steps(file)].index("ENTRYPOINT")
    assert "--uid " + user.split(":")[0] in " ".join(of(file, "RUN"))
    assert not of(file, "COPY")
    assert not of(file, "ADD")
    assert of(file, "STOPSIGNAL") == ["SIGTERM"]
    mounts = re.findall(r"--mount=type=bind,source=(\S+),target=(\S+) .*sh (\S+)/install\.sh (\S+)", file.read_text())
    assert mounts == [("wheelhouse", "/wheels", "/wheels", "/opt/edgegeo")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_containers_wheels_are_for_its_python(file: Path) -> None:
    """The command in its head makes the wheelhouse that it installs."""
    from edgegeo.field.wheelhouse import EXTRAS, Target

    text = file.read_text()
    verb, *words = shlex.split(re.findall(r"^#   edgegeo (.+)$", text, re.MULTILINE)[0])
    assert {word for word in words if word.startswith("-")} <= set(options(verb))
    asked = dict(zip(words[::2], words[1::2], strict=True))
    Target(asked["--platform"], asked["--python"], int(asked.get("--glibc", "2.35").split(".")[1]))
    assert set(asked["--extras"].split(",")) <= set(EXTRAS)
    assert f"python{asked['--python']}" in text or f"python:{asked['--python']}" in text
    gpu = environment(file).get("EDGEGEO_PROVIDER") == "cuda"
    assert gpu == ("gpu" in asked["--extras"]) == (asked["--platform"] == "aarch64")
    assert f"docker build -f runtime/{file.name} " in text


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_whether_the_server_is_ready(status: int, healthy: bool) -> None:
    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    checks = {tuple(health_check(file)) for file in FILES}
    ((python, *words),) = checks
    assert python == "/opt/edgegeo/bin/python"
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        variables = os.environ | {"EDGEGEO_PORT": str(server.server_address[1]), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run([sys.executable, *words], env=variables, capture_output=True, check=False)
        server.shutdown()
    assert (done.returncode == 0) == healthy
    assert asked == ["/health/ready"]
    source = (ROOT / "edgegeo" / "server" / "state_api.py").read_text()
    assert '"/health/ready"' in source


def test_compose_names_files_that_exist_and_takes_all_rights_away() -> None:
    yaml = pytest.importorskip("yaml")
    from edgegeo.server.process import GRACE_S

    found = yaml.safe_load((ROOT / "runtime" / "compose.yaml").read_text())
    service = found["services"]["edgegeo"]
    assert (ROOT / "runtime" / service["build"]["context"] / "pyproject.toml").is_file()
    for file in FILES:
        named = service["build"]["dockerfile"].replace("${CONTAINER:-x86}", file.stem)
        assert (ROOT / named).is_file()
    assert service["read_only"] is True
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert service["tmpfs"] == ["/tmp"]
    (secret,) = service["secrets"]
    assert f"/run/secrets/{secret}" in (ROOT / "runtime" / "x86.Dockerfile").read_text()
    assert set(found["secrets"]) == {secret}
    (command,) = of(FILES[-1], "CMD")
    words = json.loads(command)
    drain = float(words[words.index("--drain") + 1])
    assert float(service["stop_grace_period"].removesuffix("s")) > drain + GRACE_S
    jetson = yaml.safe_load((ROOT / "runtime" / "jetson.yaml").read_text())
    assert set(jetson["services"]) == set(found["services"])
