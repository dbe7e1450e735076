"""The golden inputs inside a bundle, re-run: does this machine compute what the exporting machine computed?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import BundleError, InputError
from edgegeo.runtime.embed import Embedder, normalized
from edgegeo.runtime.generate import Generator
from edgegeo.runtime.model import Model
from edgegeo.runtime.pictures import Instead
from edgegeo.runtime.rerank import Reranker

COSINE = 0.999
"""Smallest cosine between a golden embedding and its re-run (other CPUs round int8 products differently)."""
MARGIN = 0.25
"""Largest difference of a yes/no margin, in nats: 0.06 of p(yes) at most. An int8 bundle made on onnxruntime 1.31
differed by 0.036 on 1.23; a wrong file or kernel moves margins by whole nats."""
GREY_LEVEL = 1.0
"""Largest difference of a pixel, in grey levels."""


@dataclass(frozen=True)
class Check:
    """One golden output compared."""

    name: str
    passed: bool
    worst: float
    """Worst value met: lowest cosine, largest difference, or share of equal tokens."""
    limit: float
    note: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """Every check of `verify_bundle`."""

    bundle: str
    fingerprint: str
    files: int
    """Files whose hash was right."""
    manifest_hashed: bool
    """Whether the manifest was among what was hashed; those of bundles of version 2 hold no hash of their own."""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "bundle": self.bundle,
            "fingerprint": self.fingerprint,
            "files": self.files,
            "manifest_hashed": self.manifest_hashed,
            "passed": self.passed,
            "checks": [vars(check) for check in self.checks],
        }


def golden_outputs(bundle: Bundle | Model, images: NDArray[np.uint8], texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    """What the export stores in golden.npz: inputs and this runtime's outputs, for the roles the bundle offers.

    images (n, h, w, 3) uint8. `pixels.{i}.{input}`: the feeds of picture i as its preprocessing makes them,
    `layout.{i}`: its token ids with -n for n image tokens, `embed_text` (texts, dim), `embed_image` (n, dim),
    `yes_no_margin` (texts,): text i with image i % n, `answer_ids` flat and `answer_lengths` (n,).
    """
    if len(images) == 0 or len(texts) == 0:
        raise InputError("golden inputs need at least one picture and one text")
    model = Model.open(bundle)
    pictures = [Image.fromarray(image) for image in images]
    roles = model.bundle.manifest.roles
    out: dict[str, NDArray[Any]] = {
        "image": np.asarray(images, np.uint8),
        "texts": np.array(list(texts), dtype=np.str_),
    }
    for i, picture in enumerate(model.prepare(pictures)):
        out |= {f"pixels.{i}.{name}": value for name, value in picture.inputs.items()}
        runs = [run for run in picture.layout if not isinstance(run, Instead)]
        out[f"layout.{i}"] = np.concatenate([np.atleast_1d(-r if isinstance(r, int) else r) for r in runs])
    if roles.embed is not None:
        embedder = Embedder(model)
        # One at a time: dynamic quantisation takes one range per batch, so a batch would make rows depend on others.
        out["embed_text"] = embedder.texts(texts, batch=1)
        out["embed_image"] = embedder.images(pictures, batch=1)
    if roles.rerank is not None:
        reranker = Reranker(model)
        pairs = [reranker.margins(text, [pictures[i % len(pictures)]]) for i, text in enumerate(texts)]
        out["yes_no_margin"] = np.concatenate(pairs)
    if roles.generate is not None:
        answers = Generator(model).answers(pictures, batch=1)
        out["answer_ids"] = np.array([i for answer in answers for i in answer.tokens], np.int64)
        out["answer_lengths"] = np.array([len(answer.tokens) for answer in answers], np.int64)
    return out


def verify_bundle(bundle: str | Path | Bundle, threads: int | None = None, provider: str = "cpu") -> VerifyReport:
    """Re-hash every file and re-run the golden inputs; BundleError for a damaged bundle.

    A wrong output is a failed check in the report, not an exception. Answers may differ in a late digit on another
    CPU without harm, so tokens pass when at least half of them agree; embeddings, pixels and margins are held tightly.
    """
    opened = open_bundle(bundle.path if isinstance(bundle, Bundle) else bundle)
    return verify_model(Model(opened, threads, provider))


def verify_model(model: Model) -> VerifyReport:
    """`verify_bundle` of a bundle that was hashed when it was opened, on the sessions that will serve it."""
    opened = model.bundle
    golden = _read_golden(opened)
    try:
        again = golden_outputs(model, golden["image"], [str(text) for text in golden["texts"]])
    except (BundleError, MemoryError):
        raise
    except Exception as error:  # they ran where the bundle was made, whatever is stumbled over here
        raise BundleError(
            f"{opened.path}: the golden inputs can't be run ({error!s:.300}); export the bundle again"
        ) from error
    checks = [_compare(name, golden[name], again[name], opened) for name in sorted(again) if name in golden]
    missing = sorted(set(again) - set(golden))
    checks += [Check(name, False, float("nan"), float("nan"), "not in golden.npz") for name in missing]
    manifest = opened.manifest
    return VerifyReport(str(opened.path), opened.fingerprint, len(manifest.files), bool(manifest.digest), tuple(checks))


def _read_golden(bundle: Bundle) -> dict[str, NDArray[Any]]:
    path = bundle.file(bundle.manifest.golden)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{path} can't be read ({error}); export the bundle again") from None


def _compare(name: str, golden: NDArray[Any], again: NDArray[Any], bundle: Bundle) -> Check:
    if golden.shape != again.shape and not name.startswith("answer"):
        return Check(name, False, float("nan"), float("nan"), f"shape {again.shape} instead of {golden.shape}")
    stated = bundle.manifest.accuracy.get("golden_tolerance")
    tolerance = stated if isinstance(stated, dict) else {}
    if name.startswith("embed"):
        worst, limit = float((normalized(golden) * again).sum(axis=1).min()), float(tolerance.get("cosine", COSINE))
        return Check(name, worst >= limit, worst, limit, "lowest cosine")
    if name == "yes_no_margin":
        worst, limit = float(np.abs(golden - again).max()), float(tolerance.get("yes_no_margin", MARGIN))
        return Check(name, worst <= limit, worst, limit, "largest difference in nats")
    if name.startswith("pixels") and golden.dtype == np.float32:
        spec = bundle.manifest.image
        level = spec.rescale / max(spec.std)
        worst = float(np.abs(golden - again).max()) / level
        return Check(name, worst <= GREY_LEVEL + 1e-3, worst, GREY_LEVEL, "largest difference in grey levels")
    if name.startswith("answer"):
        length = max(golden.size, again.size)
        size = min(golden.size, again.size)
        equal = float(np.sum(golden.ravel()[:size] == again.ravel()[:size])) / length if length else 1.0
        return Check(name, equal >= 0.5, equal, 0.5, "share of equal values")
    return Check(name, bool(np.array_equal(golden, again)), 0.0, 0.0, "equal values")
