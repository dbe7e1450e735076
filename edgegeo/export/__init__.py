"""Checkpoint to bundle: graphs, quantisation, verification, packing. Needs the `export` extra."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgegeo.progress import Progress, silent
from edgegeo.recipe import Recipe

if TYPE_CHECKING:
    from edgegeo.export.report import ExportReport

__all__ = ["export"]


def export(
    checkpoint: Path | None, recipe: Recipe, out: Path, *, adapters: Mapping[str, Path] | None = None,
    method: str | None = None, places: int = 1000, progress: Progress = silent,
) -> "ExportReport":  # fmt: skip
    """Export a Hugging Face checkpoint (None: the packaged model) to a bundle at `out`.

    Merges each role's adapter with proof, builds the graphs, quantises them by the recipe, compares every stage with
    transformers, scores `places` unseen places before and after (0: none), writes the bundle, reads it back and
    re-runs its golden inputs. adapters: role -> folder; method: "lora" or "slq" names the checkpoint's own retriever.

    Nothing is left at `out` unless all of that succeeded; what stood there before stays until then. Raises
    CheckpointError, VerificationError, BundleError (also for a full disk).
    """
    # Imported here: torch, transformers and onnx take seconds, and a wrong option should be told before.
    from edgegeo.export.pipeline import export_source
    from edgegeo.export.source import open_source

    progress("load", 0, 1)
    source = open_source(checkpoint, adapters, method)
    progress("load", 1, 1)
    return export_source(source, recipe, out, places, progress)
