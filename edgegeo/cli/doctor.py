"""edgegeo doctor: what this machine has, what it lacks, and how to mend it."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from edgegeo.cli.flags import JsonFlag
from edgegeo.cli.output import emit_json, say
from edgegeo.errors import EdgegeoError


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    topic: str
    good: bool
    found: str
    remedy: str = ""


def command(as_json: JsonFlag = False) -> None:
    """Check installation, bundle, gallery and disk; every finding comes with its remedy."""
    findings = list(examine())
    if as_json:
        emit_json({"findings": findings})
        return
    for finding in findings:
        remedy = f"; {finding.remedy}" if finding.remedy and not finding.good else ""
        say(f"{'ok  ' if finding.good else 'note'}  {finding.topic:<10} {finding.found}{remedy}")


def examine() -> Iterator[Finding]:
    """Look at everything once; nothing is changed."""
    from edgegeo.home import data_home
    from edgegeo.measure import machine

    facts = machine()
    yield Finding("machine", True, f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}")
    python = sys.version_info[:2] >= (3, 11)
    yield Finding("python", python, str(facts["python"]), "training and export need 3.11 or newer")
    yield _extra("runtime", "cpu", ("onnxruntime",))
    yield _extra("server", "serve", ("fastapi", "uvicorn", "prometheus_client", "python_multipart"))
    yield _extra("training", "train", ("torch", "transformers", "peft", "safetensors"))
    yield _extra("export", "export", ("onnx", "onnxscript", "onnx_ir", "torch", "transformers"))
    home = data_home()
    standing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(standing).free / 2**30
    room = free > 1 and os.access(standing, os.W_OK)
    yield Finding("data home", room, f"{home}, {free:.1f} GB free", "set EDGEGEO_HOME to a folder with room")
    yield from _models()


def _extra(topic: str, extra: str, modules: tuple[str, ...]) -> Finding:
    missing = [name for name in modules if find_spec(name) is None]
    found = f"without {', '.join(missing)}" if missing else "installed"
    return Finding(topic, not missing, found, f"pip install 'edgegeo[{extra}]'")


def _models() -> Iterator[Finding]:
    from edgegeo.bundle import open_bundle
    from edgegeo.home import default_bundle, default_gallery

    try:
        bundle = open_bundle(default_bundle())
    except EdgegeoError as error:
        yield Finding("bundle", False, str(error))
        return
    yield Finding("bundle", True, f"{bundle.path}, {bundle.bytes / 2**20:.1f} MB, every hash right")
    if find_spec("onnxruntime") is None:
        return
    from edgegeo.runtime import Gallery

    try:
        gallery = Gallery.open(default_gallery(bundle.path), bundle=bundle)
        yield Finding("gallery", True, f"{gallery.path}, {len(gallery):,} tiles")
    except EdgegeoError as error:
        yield Finding("gallery", False, str(error))
