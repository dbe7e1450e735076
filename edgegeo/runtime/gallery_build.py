"""Building a gallery: a stream of tiles through the embedder into a folder that appears whole or not at all."""

import json
import math
import operator
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from edgegeo.bundle import FileEntry, ImageSpec, sha256_of
from edgegeo.errors import GalleryError, ImageError, InputError
from edgegeo.geo import check_position
from edgegeo.progress import Progress
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.gallery import DTYPES, INFO_NAME, SCHEMA_VERSION, Gallery, GalleryInfo, Row, Skipped
from edgegeo.runtime.image import ImageLimits, open_image
from edgegeo.runtime.packed import PackedWriter
from edgegeo.runtime.pictures import Picture, prepare_picture
from edgegeo.schema import to_plain

THUMB_QUALITY = 90
_SELF_COSINE = 0.98
_SELF_SLACK = 0.01


def build_gallery(
    path: Path, rows: Iterable[Any], embedder: Embedder, batch: int, progress: Progress, dtype: str
) -> Gallery:
    """`Gallery.build`."""
    if dtype not in DTYPES:
        raise InputError(f"a gallery stores {' or '.join(DTYPES)}, not {dtype}")
    target = path.absolute()
    if target.exists() and not (target / INFO_NAME).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise GalleryError(f"{path} exists and is not a gallery; choose another place with -o")
    total = operator.length_hint(rows, 0)
    with _staging(target) as folder:
        with ExitStack() as stack:
            writer = _Writer(folder, embedder, dtype, stack)
            stream = iter(rows)
            while chunk := list(islice(stream, max(1, batch))):
                writer.add(chunk)
                progress("tiles", writer.seen, total)
            writer.finish()
        info = writer.info(folder)
        text = json.dumps(to_plain(info), indent=1, allow_nan=False)
        (folder / INFO_NAME).write_text(text + "\n", encoding="utf-8")
        for file in folder.iterdir():
            _sync(file)
        progress("check", 0, len(writer.samples))
        _check_self(Gallery.open(folder), embedder, writer.samples, path)
        progress("check", len(writer.samples), len(writer.samples))
        _replace(folder, target)
    return Gallery.open(path, bundle=embedder.model.bundle)


class _Writer:
    """Rows in, files out; holds one batch of pixels at a time."""

    def __init__(self, folder: Path, embedder: Embedder, dtype: str, stack: ExitStack) -> None:
        self.embedder = embedder
        self.dtype = dtype
        self.seen = 0
        self.count = 0
        self.skipped: list[Skipped] = []
        self.samples: dict[int, Picture] = {}
        self._ids: dict[str, int] = {}
        self._places = array("d")
        self._folder = folder
        self._vectors: BinaryIO = stack.enter_context((folder / "vectors.npy").open("wb"))
        self._header(0)
        self._names = stack.enter_context(PackedWriter(folder, "ids"))
        self._thumbs = stack.enter_context(PackedWriter(folder, "thumbs"))
        self._pool = stack.enter_context(ThreadPoolExecutor(embedder.model.threads))

    def add(self, chunk: list[Any]) -> None:
        """Check, open, embed and store some rows."""
        rows = []
        for item in chunk:
            if isinstance(item, Skipped):
                self.skipped.append(item)
            else:
                rows.append(self._checked(Row(*item)))
            self.seen += 1
        ready = []
        for row, opened in zip(rows, self._pool.map(self._open, rows), strict=True):
            if isinstance(opened, Skipped):
                self.skipped.append(opened)
            else:
                ready.append((row, *opened))
        if not ready:
            return
        model, role = self.embedder.model, self.embedder.role
        vectors = self.embedder.features(model.features(role.vision, [picture for _, picture, _ in ready]))
        for (row, picture, thumb), vector in zip(ready, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise GalleryError(f"tile '{row.id}' has no finite embedding; run edgegeo verify on the bundle")
            # Rows 0, 1, 4, 16, ...: a few from everywhere, whatever the number of tiles.
            if self.count == 0 or math.log(self.count, 4).is_integer():
                self.samples[self.count] = picture
            self._names.append(row.id.encode())
            self._thumbs.append(thumb)
            self._places.extend((row.lat, row.lon))
            self.count += 1
        self._vectors.write(vectors.astype(self.dtype).tobytes())

    def finish(self) -> None:
        """Write what is known only at the end."""
        if self.count == 0:
            reasons = "; ".join(f"{s.id}: {s.reason}" for s in self.skipped[:3])
            raise GalleryError(
                f"the source has no usable tiles{f' ({reasons})' if reasons else ''}; check its pictures"
            )
        self._vectors.seek(0)
        self._header(self.count)
        np.save(self._folder / "positions.npy", np.array(self._places, np.float64).reshape(-1, 2))

    def info(self, folder: Path) -> GalleryInfo:
        """gallery.json of the finished files."""
        files = {f.name: FileEntry(f.stat().st_size, sha256_of(f)) for f in sorted(folder.iterdir())}
        bundle = self.embedder.model.bundle
        return GalleryInfo(
            SCHEMA_VERSION,
            bundle.manifest.name,
            bundle.embedding_id,
            self.count,
            self.embedder.dim,
            self.dtype,
            tuple(self.skipped),
            files,
        )

    def _header(self, count: int) -> None:
        # numpy pads the header so that the first axis can grow: written again at the end, it has the same length.
        shape = (count, self.embedder.dim)
        head = {"descr": np.dtype(self.dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._vectors, head)

    def _checked(self, row: Row) -> Row:
        where = f"row {self.seen} (id {row.id!r:.60})"
        try:
            lat, lon = float(row.lat), float(row.lon)
            check_position(lat, lon)
        except (TypeError, ValueError):
            raise InputError(f"{where}: coordinates must be numbers, got lat={row.lat!r} lon={row.lon!r}") from None
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if not isinstance(row.id, str) or not row.id:
            raise InputError(f"{where}: a tile needs a name, give every row an id")
        first = self._ids.setdefault(row.id, self.seen)
        if first != self.seen:
            raise InputError(f"{where}: row {first} has the same id; give every tile its own")
        return Row(row.id, lat, lon, row.image)

    def _open(self, row: Row) -> "tuple[Picture, bytes] | Skipped":
        # In a worker: only the small results stay, not the opened picture.
        spec = self.embedder.model.bundle.manifest.image
        try:
            image = open_image(row.image)
        except ImageError as error:
            return Skipped(row.id, str(error))
        return prepare_picture(image, spec), thumbnail(image, max(128, min(_seen_edge(spec), 512)))


def _seen_edge(spec: ImageSpec) -> int:
    """Side of the square that the model sees of a picture, in pixels."""
    return spec.size if spec.tokens else math.isqrt(spec.max_pixels)


def thumbnail(image: Image.Image, edge: int) -> bytes:
    """A JPEG of the picture with its longest side at most `edge`: what the model would see of it, kept small."""
    scale = min(1.0, edge / max(image.size))
    # A strip keeps both sides large enough to be opened again; the model squeezes it into a square anyway.
    size = [max(ImageLimits.min_side, round(side * scale)) for side in image.size]
    small = image.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = BytesIO()
    small.save(stream, "JPEG", quality=THUMB_QUALITY, subsampling=0)
    return stream.getvalue()


def _check_self(gallery: Gallery, embedder: Embedder, samples: dict[int, Picture], path: Path) -> None:
    """Every sampled tile, embedded alone, must be found where it was stored."""
    for row, picture in samples.items():
        vector = embedder.features(embedder.model.features(embedder.role.vision, [picture]))
        hits = gallery.search(vector, 1)
        own = float(np.asarray(gallery.vector(row), np.float32) @ vector[0])
        if own < _SELF_COSINE or own < float(hits.scores[0, 0]) - _SELF_SLACK:
            raise GalleryError(
                f"tile '{gallery.id(row)}' does not find itself in the new gallery (cosine {own:.3f}), {path} was not "
                "written; run edgegeo verify on the bundle"
            )


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise GalleryError(f"can't write beside {target} ({error.strerror}); choose another place with -o") from None
    try:
        yield folder
    except OSError as error:
        raise GalleryError(
            f"writing the gallery failed ({error.strerror or error}); free some space or choose another place with -o. "
            f"What stood at {target} before is unchanged"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(folder: Path, target: Path) -> None:
    os.chmod(folder, 0o755)  # mkdtemp makes it private; a service under another user must read it
    retired = folder.with_suffix(".old")
    if target.exists():
        os.rename(target, retired)
    try:
        os.rename(folder, target)
    except OSError:
        if retired.exists():
            os.rename(retired, target)
        raise
    _sync(target.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
