"""A bundle ready to compute: sessions opened when first needed and shared by every role that names them."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import BundleError, DeviceError
from edgegeo.recipe import DIALECTS
from edgegeo.runtime.image import Source, open_image
from edgegeo.runtime.pictures import ImageTokens, Instead, Picture, prepare_picture
from edgegeo.runtime.rope import rope_positions
from edgegeo.runtime.sessions import choose_provider, default_threads, open_session, suited_threads
from edgegeo.runtime.tokens import Piece, Tokenizer
from edgegeo.runtime.trunk import Floats, Ints, Trunk, TrunkInput

P = TypeVar("P")
PIXELS_PER_RUN = 2**18
# More pictures in one run of the vision tower are no faster, but its attention matrices take gigabytes (16 pictures of
# 512 px: 1.4 GB, one: 70 MB, measured): 16 of 128 px, 4 of 256 px, 1 of 512 px.
_SMALL_SHARE = 4
_SMALL_POSITIONS = 256
# Small graphs take a quarter of those pixels in one run, or so many positions of prompts (more are no faster), and runs
# go side by side where there are cores: these are then as busy as with threads inside the operators, and wait for
# nobody. The sizes are fixed, so that no number depends on the cores.


class Model:
    """The components of one bundle. Safe to share between threads; a component is loaded at its first use."""

    def __init__(
        self, bundle: Bundle, threads: int | None = None, provider: str = "cpu", cores: int | None = None
    ) -> None:
        """`threads` of every component; else what suits each of them on `cores` cores (default: `default_threads`).

        What suits: one thread for a graph of up to 16 MB of weights, all cores for a larger one.
        """
        self.bundle = bundle
        self.provider = _provider_for(bundle, provider)
        """What is in use: "cpu", "cuda" or "tensorrt"."""
        self.threads = threads or cores or default_threads()
        """Threads that open pictures, and intra-op threads of large components; of all if they were named."""
        self._named = threads
        self._sessions: dict[str, Any] = {}
        self._trunks: dict[str, Trunk] = {}
        self._lock = threading.RLock()
        self._tokenizer: Tokenizer | None = None
        self._table: NDArray[Any] | None = None

    @classmethod
    def open(cls, bundle: "str | Path | Bundle | Model", threads: int | None = None, provider: str = "cpu") -> "Model":
        """From a bundle's folder, an opened bundle, or a Model (returned as it is, to share its sessions)."""
        if isinstance(bundle, Model):
            return bundle
        return cls(bundle if isinstance(bundle, Bundle) else open_bundle(bundle), threads, provider)

    def threads_of(self, component: str) -> int:
        """Intra-op threads of a component: those that were named, else what suits its size."""
        if self._named is not None:
            return self._named
        return suited_threads(self.bundle.graph_bytes(component), self.threads)

    def session(self, component: str) -> Any:
        """The session of a component, opened once."""
        with self._lock:
            if component not in self._sessions:
                path = self.bundle.component(component)
                if self.provider == "tensorrt":
                    from edgegeo.runtime.engines.compiling import open_engine

                    self._sessions[component] = open_engine(self.bundle, component)
                else:
                    self._sessions[component] = open_session(path, self.threads_of(component), self.provider)
            return self._sessions[component]

    def adopt(self, component: str, session: Any) -> None:
        """Use a session that was opened elsewhere."""
        with self._lock:
            self._sessions[component] = session

    def unopened(self, components: Iterable[str]) -> list[str]:
        """Those of the components that no session was opened for yet, each once."""
        return [name for name in dict.fromkeys(components) if name not in self._sessions]

    def load(self, components: Iterable[str]) -> None:
        """Open sessions now rather than at their first use."""
        for component in components:
            self.session(component)

    def trunk(self, component: str) -> Trunk:
        """The decoder of a component, opened once."""
        with self._lock:
            if component not in self._trunks:
                self._trunks[component] = Trunk(
                    self.session(component), self.bundle.decoder, self.bundle.manifest.dialect
                )
            return self._trunks[component]

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer, loaded once."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = Tokenizer(self.bundle.file(self.bundle.manifest.tokenizer))
            return self._tokenizer

    @property
    def table(self) -> NDArray[Any]:
        """Token-embedding table (vocabulary, hidden) float32 or float16, memory-mapped: only used rows are read."""
        with self._lock:
            if self._table is None:
                spec, file = self.bundle.decoder, self.bundle.manifest.embed_tokens
                if file is None:
                    raise BundleError(f"{self.bundle.path}: a decoder without token embeddings; export it again")
                self._table = load_array(self.bundle, file, mapped=True)
                if self._table.shape != (spec.vocab, spec.hidden):
                    raise BundleError(
                        f"{self.bundle.path}: the embedding table has shape {self._table.shape}, the manifest says "
                        f"({spec.vocab}, {spec.hidden}); export the bundle again"
                    )
            return self._table

    def prepare(self, images: Sequence[Source]) -> list[Picture]:
        """Pictures ready for the vision tower; decoding and resizing run on all threads."""
        spec = self.bundle.manifest.image

        def work(image: Source) -> Picture:
            return prepare_picture(open_image(image), spec)

        if len(images) < 2 or self.threads < 2:
            return [work(image) for image in images]
        with ThreadPoolExecutor(min(self.threads, len(images))) as pool:
            return list(pool.map(work, images))

    def features(self, component: str, pictures: Sequence[Picture]) -> list[ImageTokens]:
        """Image tokens of prepared pictures; tiles of one size share runs of the tower."""
        session = self.session(component)
        if self.bundle.manifest.image.tokens == 0:  # native resolution: every picture has its own shape
            found = [session.run(["image_features"], picture.inputs)[0] for picture in pictures]
        else:
            output = self.bundle.manifest.components[component].output or "image_features"
            pixels = PIXELS_PER_RUN // _SMALL_SHARE if self._is_small(component) else PIXELS_PER_RUN

            def run(tiles: Floats) -> Floats:
                made: Floats = session.run([output], {"pixel_values": tiles})[0]
                return made

            tiles = [picture.inputs["pixel_values"] for picture in pictures]
            found = _tiled(lambda parts: self._each(component, run, parts), tiles, pixels)
        return [ImageTokens(rows, one.layout, one.grid) for rows, one in zip(found, pictures, strict=True)]

    def hidden(self, component: str, prompts: TrunkInput, positions: Ints) -> Floats:
        """`Trunk.hidden` of a component: (B, K, H) float32 of positions (B, K) of B prompts."""
        trunk, (count, length) = self.trunk(component), prompts.embeds.shape[:2]
        step = max(1, _SMALL_POSITIONS // length) if self._is_small(component) else count
        parts = [(prompts.rows(at, at + step), positions[at : at + step]) for at in range(0, count, step)]
        found = self._each(component, lambda part: trunk.hidden(*part), parts)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _is_small(self, component: str) -> bool:
        return self.provider == "cpu" and suited_threads(self.bundle.graph_bytes(component), 2) == 1

    def _each(self, component: str, run: Callable[[P], Floats], parts: Sequence[P]) -> list[Floats]:
        """Runs of a component, side by side where its session takes one of several threads by the runtime's choice."""
        abreast = min(len(parts), self.threads if self.threads_of(component) == 1 else 1)
        if self.provider != "cpu" or abreast < 2:
            return [run(part) for part in parts]
        with ThreadPoolExecutor(abreast) as pool:
            return list(pool.map(run, parts))

    def rows(self, ids: Ints) -> Floats:
        """Token embeddings (..., hidden) float32 of token ids (...)."""
        return np.asarray(self.table[ids], np.float32)

    def assemble(
        self,
        prompts: Sequence[Sequence[Piece]],
        pictures: Sequence[Sequence[ImageTokens]] = (),
        tail: Floats | None = None,
    ) -> TrunkInput:
        """Right-padded trunk input of several prompts.

        prompts: pieces of each row; pictures[n]: the pictures of slot n, one a row or one for all rows; tail
        (Q, hidden): rows appended to every prompt (latent queries).
        """
        spec = self.bundle.decoder
        shared = [[slot[row if len(slot) > 1 else 0] for slot in pictures] for row in range(len(prompts))]
        rows = [_parts(pieces, seen) for pieces, seen in zip(prompts, shared, strict=True)]
        extra = 0 if tail is None else len(tail)
        lengths = np.array([sum(len(part) for part in parts) + extra for parts, _ in rows], np.int64)
        width = int(lengths.max())
        ids = np.zeros((len(prompts), width), np.int64)
        blocks = np.zeros((len(prompts), width), np.int64) if spec.blocks else None
        shown: list[tuple[int, int, Floats]] = []
        for row, (parts, _) in enumerate(rows):
            at = 0
            for part in parts:
                if part.dtype == np.int64:
                    ids[row, at : at + len(part)] = part
                else:
                    shown.append((row, at, part))
                    if blocks is not None:
                        blocks[row, at : at + len(part)] = len(shown)
                at += len(part)
        if int(ids.max(initial=0)) >= spec.vocab:
            raise BundleError(f"{self.bundle.path}: a token id is beyond the vocabulary; export the bundle again")
        embeds = self.rows(ids)
        for row, at, part in shown:
            embeds[row, at : at + len(part)] = part
        if tail is not None:
            for row, length in enumerate(lengths):
                embeds[row, length - extra : length] = tail
        rope, spans = _rope([steps for _, steps in rows], extra, width) if spec.rope == "mrope" else (None, None)
        return TrunkInput(embeds, lengths, rope, spans, blocks)


def _tiled(run: Callable[[list[Floats]], list[Floats]], tiles: Sequence[Floats], pixels: int) -> list[Floats]:
    """Image tokens (tokens, hidden) of each picture, given its tiles (T, 3, H, W); `run` takes parts of some pixels."""
    counts = [len(one) for one in tiles]
    stack = tiles[0] if len(tiles) == 1 else np.concatenate(tiles)
    step = max(1, pixels // (stack.shape[2] * stack.shape[3]))
    runs = run([stack[at : at + step] for at in range(0, len(stack), step)])
    rows = runs[0] if len(runs) == 1 else np.concatenate(runs)
    ends = np.cumsum(counts)
    return [rows[end - count : end].reshape(-1, rows.shape[-1]) for count, end in zip(counts, ends, strict=True)]


def _parts(
    pieces: Sequence[Piece], pictures: Sequence[ImageTokens]
) -> tuple[list[NDArray[Any]], list[int | tuple[int, int]]]:
    """A prompt as runs of token ids (int64) and of image tokens (float32), and as steps of rotary positions."""
    parts: list[NDArray[Any]] = []
    steps: list[int | tuple[int, int]] = []
    for piece in pieces:
        if not isinstance(piece, int):
            parts.append(piece)
            steps.append(len(piece))
            continue
        picture, used = pictures[piece], 0
        for run in picture.layout:
            if isinstance(run, Instead):
                parts[-1:] = [run.of(parts[-1])] if parts else []
                steps[-1:] = [len(parts[-1])] if parts else []
            elif isinstance(run, int):
                parts.append(picture.rows[used : used + run])
                steps.append(picture.grid or run)
                used += run
            else:
                parts.append(run)
                steps.append(len(run))
    return parts, steps


def _rope(rows: Sequence[Sequence[int | tuple[int, int]]], extra: int, width: int) -> tuple[Ints, Ints]:
    """M-RoPE positions (3, B, S) of rows padded to `width`, and the positions each takes up (B,)."""
    out, spans = np.zeros((3, len(rows), width), np.int64), np.zeros(len(rows), np.int64)
    for row, steps in enumerate(rows):
        made, spans[row] = rope_positions([*steps, extra] if extra else steps)
        out[:, row, : made.shape[1]] = made
    return out, spans


def _provider_for(bundle: Bundle, provider: str) -> str:
    """The device to use; operators of a CPU bundle have no CUDA kernels and would run on the CPU unseen."""
    manifest = bundle.manifest
    if manifest.dialect not in DIALECTS.values():
        raise BundleError(
            f"{bundle.path} is of the dialect '{manifest.dialect}', which this edgegeo can't run; update it"
        )
    if provider == "auto" and manifest.dialect != "ort":
        from edgegeo.runtime.engines.compiling import has_engines

        return "tensorrt" if has_engines(bundle, list(manifest.components)) else choose_provider("cpu")
    if provider == "auto":
        return choose_provider("cpu")
    chosen = choose_provider(provider)
    # Graphs for TensorRT are standard operators: onnxruntime runs them too, slower, to check what they compute.
    if chosen != "cpu" and manifest.dialect == "ort":
        raise DeviceError(
            f"{bundle.path} was built for {manifest.target}; use --provider cpu, or export it with --target tensorrt"
        )
    return chosen


def load_array(bundle: Bundle, name: str, mapped: bool = False) -> NDArray[Any]:
    """An array file of the bundle; BundleError if it can't be read. Never unpickles."""
    path = bundle.file(name)
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
        return np.asarray(array)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} can't be read ({error}); export the bundle again") from None
