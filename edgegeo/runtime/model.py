"""A bundle ready to compute: sessions opened when first needed and shared by every role that names them."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, open_bundle
from edgegeo.errors import BundleError, DeviceError
from edgegeo.runtime.image import Source, open_image, write_pixels
from edgegeo.runtime.sessions import choose_provider, default_threads, open_session
from edgegeo.runtime.tokens import Piece, Tokenizer
from edgegeo.runtime.trunk import Floats, Ints, Trunk

_PIXELS_PER_RUN = 2**18
# More pictures in one run of the vision tower are no faster, but its attention matrices take gigabytes (16 pictures of
# 512 px: 1.4 GB, one: 70 MB, measured): 16 of 128 px, 4 of 256 px, 1 of 512 px.
_SMALL_HIDDEN = 256
# Up to this width a second thread of the decoder costs more than it saves on one request (measured at 192: 0.19 against
# 0.29 ms a token, 20 re-rankings 8.8 against 13.4 ms; at 576 two threads win).


class Model:
    """The components of one bundle. Safe to share between threads; a component is loaded at its first use."""

    def __init__(self, bundle: Bundle, threads: int | None = None, provider: str = "cpu") -> None:
        self.bundle = bundle
        self.provider = _provider_for(bundle, provider)
        """The device in use: "cpu" or "cuda"."""
        self.threads = threads or default_threads()
        """Intra-op threads of the vision tower and of picture decoding; of all components if they were named."""
        self._decoder_threads = threads or (1 if bundle.manifest.trunk.hidden <= _SMALL_HIDDEN else self.threads)
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

    def session(self, component: str) -> Any:
        """The session of a component, opened once."""
        with self._lock:
            if component not in self._sessions:
                path = self.bundle.component(component)
                kind = self.bundle.manifest.components[component].kind
                threads = self.threads if kind == "vision" else self._decoder_threads
                self._sessions[component] = open_session(path, threads, self.provider)
            return self._sessions[component]

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
                self._trunks[component] = Trunk(self.session(component), self.bundle.manifest.trunk)
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
                spec = self.bundle.manifest.trunk
                self._table = load_array(self.bundle, self.bundle.manifest.embed_tokens, mapped=True)
                if self._table.shape != (spec.vocab, spec.hidden):
                    raise BundleError(
                        f"{self.bundle.path}: the embedding table has shape {self._table.shape}, the manifest says "
                        f"({spec.vocab}, {spec.hidden}); export the bundle again"
                    )
            return self._table

    def prepare(self, images: Sequence[Source]) -> Floats:
        """Pixels (B, 3, size, size) float32 of pictures; decoding and resizing run on all threads."""
        spec = self.bundle.manifest.image
        out = np.empty((len(images), 3, spec.size, spec.size), np.float32)

        def work(index: int) -> None:
            write_pixels(open_image(images[index]), spec, out[index])

        if len(images) < 2 or self.threads < 2:
            for index in range(len(images)):
                work(index)
        else:
            with ThreadPoolExecutor(min(self.threads, len(images))) as pool:
                list(pool.map(work, range(len(images))))
        return out

    def features(self, component: str, pixels: Floats) -> Floats:
        """Image tokens (B, tokens, hidden) float32 of pixels (B, 3, size, size)."""
        session = self.session(component)
        step = max(1, _PIXELS_PER_RUN // (pixels.shape[2] * pixels.shape[3]))
        runs = [
            session.run(["image_features"], {"pixel_values": pixels[at : at + step]})[0]
            for at in range(0, len(pixels), step)
        ]
        return runs[0] if len(runs) == 1 else np.concatenate(runs)

    def rows(self, ids: Ints) -> Floats:
        """Token embeddings (..., hidden) float32 of token ids (...)."""
        return np.asarray(self.table[ids], np.float32)

    def assemble(
        self, prompts: Sequence[Sequence[Piece]], pictures: Sequence[Floats] = (), tail: Floats | None = None
    ) -> tuple[Floats, Ints]:
        """Right-padded trunk input of several prompts.

        prompts: pieces of each row; pictures[n] (B or 1, tokens, hidden): image tokens of slot n; tail (Q, hidden):
        rows appended to every prompt (latent queries). Returns embeds (B, S, hidden) float32 and lengths (B,).
        """
        spec, image_tokens = self.bundle.manifest.trunk, self.bundle.manifest.image.tokens
        extra = 0 if tail is None else len(tail)
        sizes = [[image_tokens if isinstance(p, int) else len(p) for p in pieces] for pieces in prompts]
        lengths = np.array([sum(size) + extra for size in sizes], np.int64)
        ids = np.zeros((len(prompts), int(lengths.max())), np.int64)
        slots: list[tuple[int, int, int]] = []
        for row, pieces in enumerate(prompts):
            at = 0
            for piece, size in zip(pieces, sizes[row], strict=True):
                if isinstance(piece, int):
                    slots.append((row, at, piece))
                else:
                    ids[row, at : at + size] = piece
                at += size
        if int(ids.max()) >= spec.vocab:
            raise BundleError(f"{self.bundle.path}: a token id is beyond the vocabulary; export the bundle again")
        embeds = self.rows(ids)
        for row, at, slot in slots:
            picture = pictures[slot]
            embeds[row, at : at + image_tokens] = picture[row if len(picture) > 1 else 0]
        if tail is not None:
            for row, length in enumerate(lengths):
                embeds[row, length - extra : length] = tail
        return embeds, lengths


def _provider_for(bundle: Bundle, provider: str) -> str:
    """The device to use; operators of a CPU bundle have no CUDA kernels and would run on the CPU unseen."""
    manifest = bundle.manifest
    if manifest.dialect != "ort":
        raise BundleError(
            f"{bundle.path} is of the dialect '{manifest.dialect}', this edgegeo runs 'ort'; export it again"
        )
    if manifest.target == "cpu" and provider == "auto":
        return choose_provider("cpu")
    if manifest.target == "cpu" and choose_provider(provider) != "cpu":
        raise DeviceError(f"{bundle.path} was built for the CPU; use --provider cpu, or export it for {provider}")
    return choose_provider(provider)


def load_array(bundle: Bundle, name: str, mapped: bool = False) -> NDArray[Any]:
    """An array file of the bundle; BundleError if it can't be read. Never unpickles."""
    path = bundle.file(name)
    try:
        return np.asarray(np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} can't be read ({error}); export the bundle again") from None
