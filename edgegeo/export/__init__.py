"""Checkpoint to bundle: graphs, quantisation, verification, packing. Needs the `export` extra."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgegeo.bundle import check_target
from edgegeo.errors import InputError
from edgegeo.progress import Progress, silent
from edgegeo.recipe import Recipe

if TYPE_CHECKING:
    from edgegeo.calibration import Calibration
    from edgegeo.export.budget import Budget
    from edgegeo.export.preview import Preview
    from edgegeo.export.report import ExportReport

__all__ = ["export"]


def export(
    checkpoint: Path | None, recipe: Recipe, out: Path, *, adapters: Mapping[str, Path] | None = None,
    method: str | None = None, places: int = 1000, progress: Progress = silent, force: bool = False,
    announce: "Callable[[Preview], None] | None" = None, budget: "Budget | None" = None,
    calibration: "Calibration | None" = None,
) -> "ExportReport":  # fmt: skip
    """Export a Hugging Face checkpoint (None: the packaged model) to a bundle at `out`; ONNX graphs of a dual encoder
    that another tool exported are packed as they are.

    Merges each role's adapter with proof, builds the graphs, quantises them by the recipe, compares every stage with
    transformers, scores `places` unseen places before and after (0: none), writes the bundle, reads it back and
    re-runs its golden inputs. adapters: role -> folder; method: "lora" or "slq" names the checkpoint's own retriever.
    announce: is told what the export will need before it starts. budget: keeps as few matrices in higher precision as
    it takes to lose no more than that against the fp32 graphs, on validation places.

    Nothing is left at `out` unless all of that succeeded; what stood there before stays until then. Raises
    CheckpointError, VerificationError (also for a budget that no mix keeps to), BundleError (also for a full disk);
    before any work DeviceError where memory or disk will not suffice, unless `force`.
    """
    if budget is not None:
        budget.check(recipe)
    check_target(out)
    # Imported here: torch, transformers and onnx take seconds, and a wrong option should be told before.
    from edgegeo.export.costs import Costs
    from edgegeo.export.onnx_folder import export_onnx_folder, onnx_home
    from edgegeo.export.pipeline import export_source
    from edgegeo.export.preview import check_room
    from edgegeo.export.source import open_source

    if checkpoint is not None and onnx_home(checkpoint) is not None:
        if adapters or method:
            raise InputError(f"{checkpoint} holds ONNX graphs, which take no adapters; export the checkpoint's weights")
        if budget is not None:
            raise InputError(f"{checkpoint} holds ONNX graphs, which are packed as they are; leave --max-drop out")
        return export_onnx_folder(checkpoint, recipe, out, places, progress)
    seen = check_room(checkpoint, recipe, out, adapters, force)
    if announce is not None:
        announce(seen)
    costs = Costs()
    progress("load", 0, 1)
    with costs.stage("load and merge"):
        source = open_source(checkpoint, adapters, method, recipe.image)
    progress("load", 1, 1)
    report = export_source(source, recipe, out, places, progress, costs, budget, calibration)
    return replace(report, preview=seen.to_dict())
