"""Running the command line inside the test process."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sealing import seal

from edgegeo.cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def refused(self) -> str:
        """The one line of a refusal: exit code 2, nothing on stdout, no traceback."""
        assert self.code == 2, self
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("error: ")


Cli = Callable[..., Outcome]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data home."""
    monkeypatch.setenv("EDGEGEO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """`cli("locate", photo)` runs the command line as its entry point does and says what came of it."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*words: object) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            run([str(word) for word in words])
        said = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), said.out, said.err)

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def roomy_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with room for whole descriptions: its random tokenizer needs many tokens for one."""
    folder = tmp_path_factory.mktemp("roomy") / "roomy-fp32"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "edgegeo.json").read_text())
    manifest["roles"]["embed"]["max_text_tokens"] = 230
    seal(folder, manifest)
    return folder


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of the planet with its position in EXIF."""
    from edgegeo.planet import Planet
    from edgegeo.planet.photos import write_photo

    planet = Planet()
    place = planet.places("test", 3)[2]
    return write_photo(tmp_path_factory.mktemp("photos") / "photo.jpg", planet, place.lat, place.lon, size=64)


@pytest.fixture(scope="session")
def gallery(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of five planet tiles, made by the tiny bundle."""
    from edgegeo.planet import Planet
    from edgegeo.runtime import Embedder, Gallery
    from edgegeo.runtime.gallery.sources import planet_places

    target = tmp_path_factory.mktemp("galleries") / "five"
    Gallery.build(target, planet_places(Planet(), n=5, size=64), Embedder.open(tiny_bundle, threads=1))
    return target
