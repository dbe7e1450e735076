"""Where a gallery lies in a PostgreSQL server, and the way there."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from edgegeo.errors import GalleryError, InputError

SCHEMES = ("postgresql", "postgres")
LEAST_PGVECTOR = (0, 8)
"""The first with scans of an index that go on until a filter is satisfied."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Address:
    """postgresql://USER@HOST:PORT/DATABASE/GALLERY; what stands after the host may be left out as PostgreSQL has it."""

    conninfo: str
    """The address without the gallery, as the client takes it; may hold a password."""
    gallery: str
    shown: str
    """The address without user, password and parameters, for messages."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """InputError for an address without a database and a gallery's name."""
        try:
            parts = urlsplit(text)
            place = f"{parts.hostname or 'localhost'}{f':{parts.port}' if parts.port else ''}"
        except ValueError as error:
            raise InputError(f"the address of the gallery can't be read ({error})") from None
        names = [name for name in parts.path.split("/") if name]
        if parts.scheme not in SCHEMES or len(names) != 2 or not _NAME.fullmatch(names[1]):
            raise InputError(
                f"a gallery's address is postgresql://HOST:PORT/DATABASE/GALLERY, not {parts.scheme}://{place}{parts.path}"
            )
        conninfo = urlunsplit((parts.scheme, parts.netloc, f"/{names[0]}", parts.query, ""))
        return cls(conninfo, names[1], f"postgresql://{place}/{names[0]}/{names[1]}")


def is_address(place: object) -> bool:
    """Whether a gallery's place is an address rather than a folder."""
    return isinstance(place, str) and place.partition("://")[0] in SCHEMES and "://" in place


def connect(address: Address) -> Any:
    """A connection that commits every statement; GalleryError where there is no server, or one without pgvector."""
    import psycopg

    try:
        connection = psycopg.connect(address.conninfo, autocommit=True, connect_timeout=10, application_name="edgegeo")
    except psycopg.Error as error:
        raise GalleryError(
            f"no PostgreSQL answers for {address.shown} ({reason(error)}); start it, or check the address, user and "
            "password"
        ) from None
    version = _pgvector(connection)
    if not version:
        try:
            connection.execute("CREATE EXTENSION vector")
        except psycopg.Error as error:
            connection.close()
            raise GalleryError(
                f"the database of {address.shown} has no pgvector ({reason(error)}); install it there, then let its "
                "owner run: CREATE EXTENSION vector"
            ) from None
        version = _pgvector(connection)
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_PGVECTOR:
        connection.close()
        raise GalleryError(f"{address.shown} has pgvector {version}; update it to 0.8 or newer")
    return connection


def _pgvector(connection: Any) -> str:
    """Version of the extension; empty without it."""
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return str(row[0]) if row else ""


def reason(error: BaseException) -> str:
    """What the server or the client says, in one short line."""
    return " ".join(str(error).split())[:160]
