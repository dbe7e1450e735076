"""Steps of int8 embeddings, fitted once at export: codes of any two runs of a bundle can then be compared."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgegeo.bundle import Bundle, Manifest
from edgegeo.calibration.samples import Sample
from edgegeo.runtime import Embedder, Model
from edgegeo.runtime.codes import fit_scales, truncate

NAME = "embedding_scales.npy"
PLACES, FEW = 32, 6
"""Places embedded, and where no place is to be scored: a picture of a model of billions takes many seconds."""


def with_scales(made: Bundle, manifest: Manifest, samples: Sequence[Sample], scored: bool = True) -> Manifest:
    """The manifest of a staged bundle with its scales written beside it; as it was where nothing embeds."""
    role = manifest.roles.embed
    if role is None:
        return manifest
    embedder, chosen = Embedder(Model(made)), samples[: PLACES if scored else FEW]
    pictures = [picture for one in chosen for picture in (one.photo, one.tile)]
    vectors = np.concatenate([embedder.texts([one.text for one in chosen]), embedder.images(pictures)])
    table = np.zeros((1 + len(role.matryoshka), role.dim), np.float32)
    for row, dim in zip(table, (role.dim, *role.matryoshka), strict=True):
        row[:dim] = fit_scales(truncate(vectors, dim))
    np.save(made.path / NAME, table)
    return replace(manifest, roles=replace(manifest.roles, embed=replace(role, scales=NAME)))
