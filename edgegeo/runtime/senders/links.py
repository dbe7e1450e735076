"""Lines to whoever listens: UDP, TCP as client or as server of several clients, and serial ports.

Nothing is kept back or repeated: a position is worth sending once.
"""

import os
import select
import socket
import time
from typing import Protocol
from urllib.parse import urlsplit

from edgegeo.errors import LinkError

TIMEOUT_S = 5.0
"""How long a receiver may take to accept a connection or bytes."""


class Link(Protocol):
    """Somewhere to send bytes."""

    def send(self, message: bytes) -> None:
        """Send one message whole; LinkError if it could not leave."""

    def close(self) -> None:
        """Let go of the line; may be called twice."""


def open_link(address: str, wait_s: float = TIMEOUT_S) -> Link:
    """The link that an address names; LinkError if it names none, or the other side can't be reached.

    udp://HOST:PORT sends datagrams, tcp://HOST:PORT connects, tcp-listen://HOST:PORT serves every client that connects
    (and waits `wait_s` for the first one when there is something to send), serial:///dev/NAME:BAUD writes to a port.
    """
    parts = urlsplit(address)
    try:
        port, host = parts.port, parts.hostname
    except ValueError:
        port, host = None, None
    if parts.scheme == "serial" and parts.path:
        device, _, baud = parts.path.rpartition(":")
        if device and baud.isdecimal():
            return Serial(address, device, int(baud))
    elif parts.scheme in ("udp", "tcp", "tcp-listen") and host and port is not None and not parts.path.strip("/"):
        if parts.scheme == "tcp-listen":
            return TcpServer(address, host, port, wait_s)
        return Udp(address, host, port) if parts.scheme == "udp" else Tcp(address, host, port)
    raise LinkError(
        f"'{address}' is no address; give udp://HOST:PORT, tcp://HOST:PORT, tcp-listen://HOST:PORT or "
        "serial:///dev/NAME:BAUD"
    )


class Udp:
    """Datagrams to one receiver, which need not be there; on this machine its absence is noticed."""

    def __init__(self, address: str, host: str, port: int) -> None:
        self._address = address
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind, protocol)
        except OSError as error:
            raise _refusal(address, error) from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            self._socket.connect(place)
        except OSError as error:
            self._socket.close()
            raise _refusal(address, error) from None

    def send(self, message: bytes) -> None:
        """One datagram."""
        try:
            try:
                self._socket.send(message)
            except ConnectionRefusedError:  # of an earlier datagram; this one has not left yet
                self._socket.send(message)
            # On this machine the answer that nobody listens is there at once.
            if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
        except OSError as error:
            raise _refusal(self._address, error) from None

    def close(self) -> None:
        self._socket.close()


class Tcp:
    """A connection to one receiver; broken, it is made again for the next message."""

    def __init__(self, address: str, host: str, port: int) -> None:
        self._address, self._place = address, (host, port)
        self._socket: socket.socket | None = self._connected()

    def _connected(self) -> socket.socket:
        try:
            return socket.create_connection(self._place, TIMEOUT_S)
        except OSError as error:
            raise _refusal(self._address, error) from None

    def send(self, message: bytes) -> None:
        """The whole message, or LinkError."""
        if self._socket is not None and _gone(self._socket):
            self.close()
        if self._socket is None:
            self._socket = self._connected()
        try:
            self._socket.sendall(message)
        except OSError as error:
            self.close()
            raise _refusal(self._address, error) from None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class TcpServer:
    """A port that clients connect to, each of which gets every message from then on."""

    def __init__(self, address: str, host: str, port: int, wait_s: float) -> None:
        self._address, self._wait_s = address, wait_s
        self._clients: list[socket.socket] = []
        try:
            self._socket = socket.create_server((host, port), family=_family(host))
        except OSError as error:
            raise _refusal(address, error) from None
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    def send(self, message: bytes) -> None:
        """The message to every client; those that left or don't read are let go. LinkError if none was there."""
        self._accept(0.0)
        self._send(message)
        if not self._clients:  # nobody yet, or all have left
            self._accept(self._wait_s)
            self._send(message)
        if not self._clients:
            raise LinkError(f"nobody is connected to {self._address}; nothing was sent")

    def _accept(self, wait_s: float) -> None:
        while select.select([self._socket], [], [], wait_s)[0]:
            try:
                client, _ = self._socket.accept()
            except OSError:  # left again while it was waiting
                continue
            client.settimeout(TIMEOUT_S)
            self._clients.append(client)
            wait_s = 0.0

    def _send(self, message: bytes) -> None:
        for client in list(self._clients):
            try:
                if _gone(client):
                    raise ConnectionError
                client.sendall(message)
            except OSError:
                client.close()
                self._clients.remove(client)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._socket.close()


class Serial:
    """A serial port, written raw: 8 data bits, no parity, one stop bit, no flow control."""

    def __init__(self, address: str, device: str, baud: int) -> None:
        self._address, self._file = address, -1
        try:
            import termios
            import tty
        except ImportError:
            raise LinkError(f"{address}: serial ports need Linux or macOS; use udp:// or tcp:// here") from None
        speed = getattr(termios, f"B{baud}", None)
        if speed is None:
            raise LinkError(f"{address}: no serial port runs at {baud} baud; usual rates are 9600, 57600 and 115200")
        try:
            self._file = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            tty.setraw(self._file)
            settings = termios.tcgetattr(self._file)
            settings[2] = (settings[2] | termios.CLOCAL | termios.CREAD) & ~(termios.CSTOPB | termios.CRTSCTS)
            settings[4] = settings[5] = speed
            termios.tcsetattr(self._file, termios.TCSANOW, settings)
        except (OSError, termios.error) as error:
            self.close()
            raise _refusal(address, error) from None

    def send(self, message: bytes) -> None:
        """The whole message, as fast as the port takes it."""
        end = time.monotonic() + TIMEOUT_S
        while message:
            try:
                if not select.select([], [self._file], [], max(0.0, end - time.monotonic()))[1]:
                    raise TimeoutError("timed out")
                message = message[os.write(self._file, message) :]
            except OSError as error:
                raise _refusal(self._address, error) from None

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _gone(client: socket.socket) -> bool:
    """Whether the other side has closed; what it said meanwhile is read and dropped."""
    try:
        for _ in range(16):
            if not select.select([client], [], [], 0.0)[0]:
                return False
            if not client.recv(65536):
                return True
    except OSError:
        return True
    return False


def _refusal(address: str, error: BaseException) -> LinkError:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return LinkError(f"can't send to {address} ({said}); check the address and that something listens there")
