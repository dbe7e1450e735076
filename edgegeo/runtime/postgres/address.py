"""Where a gallery lies in a PostgreSQL server, and the way there."""

import re
from dataclasses import dataclass
from typing import Any

from edgegeo.errors import GalleryError, InputError, one_line

SCHEMES = ("postgresql", "postgres")
LEAST_PGVECTOR = (0, 8)
"""The first with scans of an index that go on until a filter is satisfied."""
_FORM = re.compile(
    r"(?P<server>postgres(?:ql)?://(?:[^/?]*@)?(?P<hosts>[^/?@]*)/(?P<database>[^/?@]+))"
    r"/(?P<gallery>[A-Za-z0-9][A-Za-z0-9._-]{0,62})/?(?P<parameters>\?.*)?"
)


@dataclass(frozen=True)
class Address:
    """postgresql://USER@HOST:PORT/DATABASE/GALLERY; what stands after the host may be left out as PostgreSQL has it.

    Of a server with replicas HOST:PORT,HOST:PORT names all: searches take the first that answers, another when it is
    lost, pushes the one that takes writes. Parameters go to the client as they are (load_balance_hosts, sslmode, ...).
    """

    conninfo: str
    """The address without the gallery, as the client takes it; may hold a password."""
    gallery: str
    shown: str
    """The address without user, password and parameters, for messages."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """InputError for an address without a database and a gallery's name."""
        form = _FORM.fullmatch(text)
        if form is None:
            told = re.sub(r"//.*@", "//", text).partition("?")[0]
            raise InputError(f"a gallery's address is postgresql://HOST:PORT/DATABASE/GALLERY, not {told:.200}")
        hosts = form["hosts"] or "localhost"
        for host in hosts.split(","):
            port = host.rpartition("]")[2].partition(":")[2]
            if port and not (port.isdecimal() and 0 < int(port) < 1 << 16):
                raise InputError(f"the address of the gallery has the port {port!r:.20}; ports are 1 to 65535")
        shown = f"postgresql://{hosts}/{form['database']}/{form['gallery']}"
        return cls(form["server"] + (form["parameters"] or ""), form["gallery"], shown)


def is_address(place: object) -> bool:
    """Whether a gallery's place is an address rather than a folder."""
    return isinstance(place, str) and place.partition("://")[0] in SCHEMES and "://" in place


def connect(address: Address, writes: bool = False) -> Any:
    """A connection that commits every statement; GalleryError where there is no server, or one without pgvector.

    writes: to the first of the address's hosts that takes them.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        given: dict[str, Any] = {"connect_timeout": 10, "application_name": "edgegeo"}
        given |= conninfo_to_dict(address.conninfo)
        if writes:
            given["target_session_attrs"] = "read-write"
        connection = psycopg.connect(autocommit=True, **given)
    except psycopg.Error as error:
        kind = "PostgreSQL that takes writes" if writes else "PostgreSQL"
        raise GalleryError(
            f"no {kind} answers for {address.shown} ({one_line(error)}); start it, or check the address, user and "
            "password"
        ) from None
    version = _pgvector(connection)
    if not version:
        try:
            connection.execute("CREATE EXTENSION vector")
        except psycopg.Error as error:
            connection.close()
            raise GalleryError(
                f"the database of {address.shown} has no pgvector ({one_line(error)}); install it there, then let its "
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
