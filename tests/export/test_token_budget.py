"""The token budget from recipe to bundle: other sizes and tiles, equal to transformers at every stage."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegeo.bundle import open_bundle
from edgegeo.export import export
from edgegeo.recipe import TokenBudget, preset, with_budget
from edgegeo.runtime import Embedder, Generator, Reranker


@pytest.mark.parametrize(
    ("budget", "tokens", "tiles"), [(TokenBudget(16), 1, 1), (TokenBudget(48), 9, 1), (TokenBudget(16, 4), 1, 3)]
)
def test_a_bundle_of_another_budget_equals_transformers(
    checkpoint: Path, tmp_path: Path, budget: TokenBudget, tokens: int, tiles: int
) -> None:
    """Parity is checked by the export itself; with tiles the pictures of a prompt have several runs of tokens."""
    recipe = with_budget(preset("fp32"), budget)
    report = export(checkpoint, recipe, tmp_path / "made", places=0)
    values = {row.name: row.value for row in report.rows if row.section == "parity"}
    assert values["pixels"] == 0
    assert values["image embedding"] > 0.99999
    assert values["yes/no margin"] < 1e-3
    assert values["greedy tokens"] == 1
    bundle = open_bundle(tmp_path / "made")
    assert bundle.manifest.name.endswith(f"-fp32-{budget.label}")
    assert (bundle.manifest.image.size, bundle.manifest.image.tokens) == (budget.image_size, tokens)
    embedder = Embedder.open(bundle, threads=1)
    noise = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    images = [Image.fromarray(noise), Image.fromarray(noise[:, :40])]
    assert len(embedder.model.prepare(images)[0].inputs["pixel_values"]) == tiles
    # Pictures of different tile counts share a batch.
    together, alone = embedder.images(images), embedder.images(images[:1])
    assert np.abs(together[0] - alone[0]).max() < 1e-5
    reranker = Reranker(embedder.model)
    margins = reranker.margins(images[0], images)
    assert np.abs(margins[1] - reranker.margins(images[0], images[1:])[0]) < 1e-4
    assert len(Generator(embedder.model).answers(images)) == 2
