"""Tiles embedded by workers on a Ray cluster: `pip install 'edgegeo[ray]'`.

The process that builds the gallery reads the source, hands out chunks, and writes what comes back in the order of the
source: whichever worker had a chunk, and however often it was begun, every tile becomes one row.
"""

import logging
import os
import socket
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgegeo.errors import EdgegeoError, GalleryError, one_line
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.gallery.rows import Row, Skipped
from edgegeo.runtime.gallery.workers import Found, Opened, open_tile
from edgegeo.runtime.sessions import default_threads

RETRIES = 3
"""How often a chunk is begun again after its worker ended, before the build gives up."""
IN_HAND = 3
"""Chunks a worker has before it: one that it embeds, the others on their way there and back."""
STORE_BYTES = 200 * 2**20
"""Shared memory of a local cluster; chunks pass through it, a few MB each."""
_START_S = 300.0


class RayWorkers:
    """A pool of Ray actors, each with the bundle opened. Pictures and bundle must lie where every node finds them.

    A worker that ends is started again, on another node if need be, and its chunks with it. GalleryError where Ray
    can't be reached, has no room, or the workers have another bundle.
    """

    def __init__(
        self, embedder: Embedder, address: str = "local", workers: int | None = None, threads: int | None = None
    ) -> None:
        """`threads` of each worker, by default 1; `workers` by default as many as the cluster has cores (or GPUs) for.

        address: "local" starts a cluster on this machine for as long as the build lasts.
        """
        import ray

        self._ray = ray
        threads = threads or 1
        self._own = not ray.is_initialized()
        if self._own:
            _connect(ray, address, (workers or max(1, default_threads() // threads)) * threads)
        model = embedder.model
        gpus = 1 if model.provider == "cuda" else 0
        try:
            self.count = _room(ray, threads, gpus, workers)
            actor = ray.remote(_Worker).options(
                num_cpus=threads, num_gpus=gpus, max_restarts=-1, max_task_retries=RETRIES
            )
            settings = str(model.bundle.path.absolute()), threads, model.provider, embedder.embedding_id
            self._actors = [actor.remote(*settings) for _ in range(self.count)]
            self.nodes = len({node for node, _ in self.whereabouts()})
        except BaseException:
            self.close()
            raise
        self.window = IN_HAND * self.count
        self._pending: dict[Any, int] = {}

    def whereabouts(self) -> list[tuple[str, int]]:
        """Node and process of each worker; waits until all of them run."""
        return list(self._get([actor.whereabouts.remote() for actor in self._actors], _START_S))

    def submit(self, rows: Sequence[Row]) -> Any:
        """Hand a chunk to the worker that has the fewest."""
        if not rows:
            return None
        done, _ = self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        busy = Counter(number for ref, number in self._pending.items() if ref not in set(done))
        number = min(range(self.count), key=lambda one: busy[one])
        ref = self._actors[number].encode.remote(list(rows))
        self._pending[ref] = number
        return ref, rows

    def result(self, ticket: Any) -> list[Found]:
        """The tiles of a chunk, embedded."""
        if ticket is None:
            return []
        ref, rows = ticket
        try:
            found: list[Found] = self._get(ref)
        except self._ray.exceptions.RayActorError as error:
            raise GalleryError(
                f"Ray workers ended {RETRIES + 1} times over the tiles '{rows[0].id}' to '{rows[-1].id}' "
                f"({one_line(error)}); look at these pictures, or give each worker more memory with fewer --workers. "
                "What is embedded is kept: the same command goes on"
            ) from None
        finally:
            self._pending.pop(ref, None)
        for row, tile in zip(rows, found, strict=True):
            image = row.image if isinstance(tile, Skipped) and tile.reason.startswith("no picture at ") else None
            if isinstance(image, (str, Path)) and Path(image).is_file():
                raise GalleryError(
                    f"a Ray worker finds no {image}, which is there on this machine; put the pictures where every node "
                    "of the cluster sees them under the same path"
                )
        return found

    def close(self) -> None:
        """End the workers, and the cluster if it was started here; a second time does nothing."""
        for actor in getattr(self, "_actors", ()):
            self._ray.kill(actor)
        self._actors = []
        if self._own and self._ray.is_initialized():
            self._ray.shutdown()

    def _get(self, refs: Any, timeout: float | None = None) -> Any:
        """What workers answer; their own errors as they raised them."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(refs, timeout=timeout)
        except errors.RayTaskError as error:
            cause = error.cause
            raise (
                cause if isinstance(cause, EdgegeoError) else GalleryError(f"a Ray worker failed: {one_line(cause)}")
            ) from None
        except errors.GetTimeoutError:
            raise GalleryError(
                f"the Ray cluster started no {self.count} workers within {_START_S:.0f} s; name fewer with --workers"
            ) from None


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, bundle: str, threads: int, provider: str, embedding_id: str) -> None:
        self._embedder = Embedder.open(bundle, threads=threads, provider=provider)
        self._threads = threads
        self._faithful = self._embedder.embedding_id == embedding_id

    def whereabouts(self) -> tuple[str, int]:
        """Node and process."""
        import ray

        if not self._faithful:
            raise GalleryError(
                f"the Ray workers find another bundle at {self._embedder.model.bundle.path}; copy this machine's there"
            )
        return str(ray.get_runtime_context().get_node_id()), os.getpid()

    def encode(self, rows: list[Row]) -> list[Found]:
        """Open and embed a chunk as the local build does, in one call of the model."""
        model, role = self._embedder.model, self._embedder.role
        with ThreadPoolExecutor(self._threads) as pool:
            found = list(pool.map(lambda row: open_tile(row, model.bundle.manifest.image), rows))
        tiles = [tile for tile in found if isinstance(tile, Opened)]
        pictures = [tile.picture for tile in tiles if tile.picture is not None]
        if not pictures:
            return found
        vectors = iter(self._embedder.features(model.features(role.vision, pictures)))
        return [replace(t, picture=None, vector=next(vectors)) if isinstance(t, Opened) else t for t in found]


def _connect(ray: Any, address: str, cpus: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own is 15, which starves beside anything else
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            ray.init(address="local", num_cpus=cpus, object_store_memory=STORE_BYTES, include_dashboard=False, **quiet)
        else:
            _knock(address)  # Ray itself would try for minutes
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise GalleryError(
            f"no Ray cluster at {address} ({one_line(error)}); check the address (ray start --head prints it), or use "
            "--ray local"
        ) from None
    except Exception as error:
        if type(error) is not Exception:  # Ray's own for a node that comes up too slowly
            raise
        ray.shutdown()
        raise GalleryError(
            f"Ray did not start on this machine ({one_line(error)}); try again when it is less busy, or leave out --ray"
        ) from None


def _knock(address: str) -> None:
    """OSError or ValueError where nothing listens at HOST:PORT or ray://HOST:PORT."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if address != "auto":
        if not (parts.hostname and parts.port):
            raise ValueError("it is HOST:PORT, ray://HOST:PORT, auto or local")
        socket.create_connection((parts.hostname, parts.port), timeout=10).close()


def _room(ray: Any, threads: int, gpus: int, asked: int | None) -> int:
    """How many workers to start."""
    has = ray.cluster_resources()
    room = int(has.get("GPU", 0) if gpus else has.get("CPU", 0) // threads)
    if room < (asked or 1):
        what = "GPUs" if gpus else f"cores for {threads} threads each"
        raise GalleryError(f"the Ray cluster has {what} for {room} workers, not {asked or 1}; name fewer, or add nodes")
    return asked or room
