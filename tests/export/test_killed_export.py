"""An export that is killed half-way leaves nothing once the same export has been run again."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgegeo.bundle import open_bundle
from edgegeo.export.pipeline import export_source
from edgegeo.export.source import Source
from edgegeo.recipe import preset

KILLED = """
import os, signal, sys
from pathlib import Path
from edgegeo.export.pipeline import export_source
from edgegeo.export.source import open_source
from edgegeo.recipe import preset
checkpoint, out = map(Path, sys.argv[1:])
def progress(stage, done, total):
    if list(out.parent.glob(".out.*.part/onnx/*.onnx")):
        os.kill(os.getpid(), signal.SIGKILL)
export_source(open_source(checkpoint), preset("int8"), out, places=0, progress=progress)
"""


@pytest.mark.slow
def test_the_next_export_of_the_name_clears_up_after_one_that_was_killed(
    source: Source, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(checkpoint), str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".out.*.part"))) == 3
    export_source(source, preset("int8"), out, places=0)
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
    open_bundle(out)
