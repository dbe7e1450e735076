"""What the libraries of the build side may do behind a verb: say nothing, and ask the hub only for a hub name."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgegeo.models.checkpoint import packaged_checkpoint

pytest.importorskip("transformers")
pytest.importorskip("peft")


def test_libraries_say_nothing(tmp_path: Path) -> None:
    # transformers warns of these ids, and of a setting that PEFT asks for; bitsandbytes of kernels it lacks.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip", "text_config": {"vocab_size": 32}}))
    code = (
        "from edgegeo.cli.output import hush_libraries\n"
        "hush_libraries()\n"
        "import warnings\n"
        "from peft import PeftModel\n"
        "from transformers import AutoConfig\n"
        f"AutoConfig.from_pretrained({str(tmp_path)!r})\n"
        "warnings.warn_explicit('library', UserWarning, 'x.py', 1, module='peft.tuners')\n"
        "warnings.warn_explicit('our own', UserWarning, 'x.py', 1, module='edgegeo.cli')\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_", "PYTHONWARN"))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["x.py:1: UserWarning: our own"]


class _Empty(BaseHTTPRequestHandler):
    """A hub that has no repositories."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


class _Stocked(_Empty):
    """A hub with one repository: the packaged configuration, and weights that would take a while."""

    commit = "0123456789abcdef0123456789abcdef01234567"
    names = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/api/models/org/name/revision/"):
            listing = {"id": "org/name", "sha": self.commit, "siblings": [{"rfilename": n} for n in self.names]}
            body = json.dumps(listing).encode()
        elif self.path.startswith("/api/models/org/name/tree/"):
            files = [{"type": "file", "path": n, "size": 1, "oid": n} for n in self.names]
            body = json.dumps(files).encode()
        else:
            body = (packaged_checkpoint() / name).read_bytes()
        self.send_response(200)
        for key, value in {"ETag": f'"{name}"', "X-Repo-Commit": self.commit, "Content-Length": len(body)}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET


def on_a_hub(kind: type[_Empty], tmp_path: Path, *verb: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A verb run against a hub on loopback, and the paths it asked for."""
    asked: list[str] = []
    handler = type("Handler", (kind,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    environment = clean | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path),
        "EDGEGEO_HOME": str(tmp_path / "home"),
    }  # fmt: skip
    try:
        words = [sys.executable, "-m", "edgegeo", *verb]
        done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    finally:
        server.shutdown()
        server.server_close()
    return done, asked


def test_a_plan_leaves_the_weights_on_the_hub(tmp_path: Path) -> None:
    done, asked = on_a_hub(_Stocked, tmp_path, "export", "org/name", "--int4", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] > 1_000_000
    assert any(path.endswith("config.json") for path in asked)
    assert not any("safetensors" in path for path in asked)


@pytest.mark.parametrize("verb", [("export", "org/name", "--plan"), ("bench", "--checkpoint", "org/name")])
def test_a_hub_name_is_looked_up_on_the_hub(tmp_path: Path, verb: tuple[str, ...]) -> None:
    done, asked = on_a_hub(_Empty, tmp_path, *verb)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the hub has no such repository" in done.stderr
    assert any("org/name" in path for path in asked)
