"""The frame around the verbs: help, exit codes, one-line errors, environment variables."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

import edgegeo
from edgegeo.cli import main
from edgegeo.cli.main import build_app
from edgegeo.errors import InputError

HEAVY = {"numpy", "PIL", "onnxruntime", "tokenizers", "torch", "transformers", "peft", "onnx", "fastapi", "uvicorn"}


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `edgegeo doctor` raise."""

    def examine(full: bool) -> Any:
        raise error

    monkeypatch.setattr("edgegeo.cli.doctor.examine", examine)


@pytest.mark.parametrize("words", [["--help"], ["locate", "--help"], ["train", "base", "--help"], ["export", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    program = (
        "import json, sys\nfrom edgegeo.cli.main import run\n"
        f"try:\n    run({words!r})\nexcept SystemExit as stop:\n"
        "    print('LOADED', json.dumps([stop.code, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    code, loaded = json.loads(done.stdout.rsplit("LOADED", 1)[1])
    assert code == 0
    assert HEAVY & set(loaded) == set()
    assert "Usage" in done.stdout


def test_version(cli: Any) -> None:
    assert cli("--version").out.strip() == f"edgegeo {edgegeo.__version__}"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["lcoate"], "No such command 'lcoate'"),
        (["locate", "--nope"], "see edgegeo locate --help"),
        (["index", "build", "--places", "many"], "see edgegeo index build --help"),
        (["index", "build", "--places", "0"], "--places"),
        (["planet"], "planet"),
        ([], "edgegeo --help"),
    ],
)
def test_wrong_usage_is_one_line(cli: Any, words: list[str], part: str) -> None:
    done = cli(*words)
    assert done.code == 2
    assert part in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_every_flag_has_an_environment_variable() -> None:
    bare = []

    def walk(command: Any, path: str) -> None:
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name not in ("help", "version"):
                variable = parameter.envvar or ""
                if not (isinstance(variable, str) and variable.startswith("EDGEGEO_")):
                    bare.append(f"{path} {parameter.name}")
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}")

    walk(get_command(build_app()), "edgegeo")
    assert bare == []


def test_every_verb_answers_in_json() -> None:
    without = []

    def walk(command: Any, path: str) -> None:
        inner = getattr(command, "commands", {})
        for name, one in inner.items():
            walk(one, f"{path} {name}")
        if not inner and "as_json" not in {parameter.name for parameter in command.params}:
            without.append(path)

    walk(get_command(build_app()), "edgegeo")
    assert without == []


def test_a_flag_beats_the_environment(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEGEO_BUNDLE", str(tmp_path / "from-environment"))
    assert "from-environment" in cli("locate").refused()
    assert "from-flag" in cli("locate", "--bundle", tmp_path / "from-flag").refused()


def test_a_known_error_is_one_line_even_when_its_text_is_not(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, InputError("first\nsecond"))
    assert cli("doctor").refused() == "first second"


def test_an_unknown_error_is_one_line_and_exit_code_1(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError("oh"))
    done = cli("doctor")
    assert done.code == 1
    assert done.err.strip() == "error: ZeroDivisionError: oh (not expected: run again with --debug and report it)"


@pytest.mark.parametrize("words", [["--debug", "doctor"], ["doctor", "--debug"]])
def test_debug_shows_the_traceback(words: list[str], monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    failing(monkeypatch, InputError("oh"))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(InputError, match="oh"):
            main.run(words)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("verb", "module", "extra"),
    [
        ("doctor", "onnxruntime", "cpu"),
        ("doctor", "fastapi", "serve"),
        ("doctor", "onnx", "export"),
        ("doctor", "torch", "export"),
    ],
)
def test_a_missing_extra_is_named(
    cli: Any, monkeypatch: pytest.MonkeyPatch, verb: str, module: str, extra: str
) -> None:
    failing(monkeypatch, ModuleNotFoundError(f"No module named '{module}'", name=module))
    assert f"pip install 'edgegeo[{extra}]'" in cli(verb).refused()


def test_training_without_torch_names_the_training_extra() -> None:
    message, code = main._explain(ModuleNotFoundError("no", name="torch.nn"), ["train", "base"])
    assert code == 2
    assert "edgegeo[train]" in message


def test_an_unknown_missing_module_is_a_fault_of_ours(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ModuleNotFoundError("No module named 'wings'", name="wings"))
    assert cli("doctor").code == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_interruption(cli: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    failing(monkeypatch, error)
    done = cli("doctor")
    assert (done.code, done.err.strip()) == (130, "interrupted")


def test_kill_unwinds(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unwound = []

    def examine(full: bool) -> Any:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            yield
        finally:
            unwound.append(True)

    monkeypatch.setattr("edgegeo.cli.doctor.examine", examine)
    assert cli("doctor").code == 128 + signal.SIGTERM
    assert unwound


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    command = f"{sys.executable} -m edgegeo doctor --json | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # 1: the pipe broke while the verb was still writing
