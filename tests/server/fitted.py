"""The tiny bundle as a field one is: held to a grammar, with a fit that gives radius and confidence."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

from tiny_grammar import add_grammar

from edgegeo.bundle import publish, staging
from edgegeo.runtime.doubt import Band, Doubt, Fit, write_fit
from edgegeo.runtime.fusion import Fusing, Linear

RADII_KM = (500.0, 900.0, 1200.0, 1500.0)
CONFIDENCE = 0.4


def make_fitted(tiny: Path, folder: Path) -> Path:
    """The bundle, written below `folder`. Several candidates with tiles have a radius; grey pictures are doubted."""
    doubt = Doubt(Linear(("agreement",), (1.0,), 0.0), (Band(-1e9, RADII_KM, CONFIDENCE, 60),))
    cue = Linear(("contrast",), (1.0,), 3.0)
    fit = Fit(1, Fusing("mean"), Fusing("mean"), {}, {"several+tiles": doubt}, cue, (), {"places": 60})
    spoken = add_grammar(tiny, folder / "spoken")
    with staging(folder / "tiny") as made:
        copytree(spoken.path, made, dirs_exist_ok=True)
        return publish(made, replace(spoken.manifest, fit=write_fit(fit, made)), folder / "tiny").path
