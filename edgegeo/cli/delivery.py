"""Answers that go on: to a document of many photos, to vehicles and plotters, and for every new photo of a folder."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgegeo.cli.flags import flag
from edgegeo.cli.output import note
from edgegeo.errors import InputError, LinkError

if TYPE_CHECKING:
    from edgegeo.geo import Position
    from edgegeo.runtime import Answer, Locator
    from edgegeo.runtime.formats import Failed, Located
    from edgegeo.runtime.senders import MavlinkSender, NmeaSender

    Sender = NmeaSender | MavlinkSender

FormatFlag = Annotated[
    str | None,
    flag("--format", verb="locate", help="One document of all photos: text, json, geojson, gpx, kml or csv."),
]
OutputFlag = Annotated[
    Path | None, flag("--output", "-o", verb="locate", help="Write the document here; the suffix names the format.")
]
NmeaFlag = Annotated[
    str | None,
    flag(
        "--nmea", help="Send NMEA 0183: udp://HOST:PORT, tcp://HOST:PORT, tcp-listen://HOST:PORT, serial:///dev/X:BAUD."
    ),
]
MavlinkFlag = Annotated[
    str | None,
    flag("--mavlink", help="Send MAVLink: udpout:HOST:PORT, tcp:HOST:PORT, tcpin:HOST:PORT, serial:/dev/X:BAUD."),
]
MessageFlag = Annotated[str, flag("--mavlink-message", help="gps_input or vision_position_estimate.")]
OriginFlag = Annotated[
    str | None, flag("--origin", help="LAT,LON of the vehicle's local origin, for vision_position_estimate.")
]
WatchFlag = Annotated[
    Path | None, flag("--watch", verb="locate", help="Locate every new photo of this folder until Ctrl-C.")
]

Ask = Callable[[Path | None, str | None], "Answer"]
"""Locates a photo, a text, or both."""
Opened = Callable[[], tuple["Locator", Ask]]
"""Loads the model."""


@dataclass(frozen=True)
class Delivery:
    """Where answers go, as the flags say."""

    format: str | None = None
    output: Path | None = None
    nmea: str | None = None
    mavlink: str | None = None
    message: str = "gps_input"
    origin: str | None = None
    watch: Path | None = None

    @property
    def sends(self) -> bool:
        """Whether anything leaves for a receiver."""
        return self.nmea is not None or self.mavlink is not None

    def wanted(self, photos: list[Path]) -> bool:
        """Whether this is more than one answer for a person to read."""
        return self.sends or bool(self.format or self.output or self.watch) or len(photos) > 1

    def checked(self, photos: list[Path], text: str | None, as_json: bool, picture: Path | None) -> str:
        """The format of the document; InputError, before any work, for flags that exclude each other."""
        from edgegeo.runtime.formats import WRITERS

        if picture is not None:
            raise InputError(
                "--map draws one answer; leave it out with several photos, --format, -o, --watch or a sender"
            )
        if as_json and (self.format not in (None, "json") or self.watch):
            raise InputError("--json is --format json; give one of --json, --format and --watch")
        if self.watch is not None and (photos or text is not None or self.format not in (None, "text") or self.output):
            raise InputError(
                "--watch takes its photos from the folder and prints lines; leave out photos, --text and -o"
            )
        if self.sends and not (photos or text is not None or self.watch):
            raise InputError("name a photo, a --text or --watch FOLDER: a demonstration photo is not sent to a vehicle")
        if self.origin is not None and (self.mavlink is None or self.message != "vision_position_estimate"):
            raise InputError("--origin goes with --mavlink and --mavlink-message vision_position_estimate")
        suffix = self.output.suffix.lower().lstrip(".") if self.output else ""
        format = self.format or ("json" if as_json else "") or {"txt": "text"}.get(suffix, suffix) or "text"
        if format not in WRITERS:
            raise InputError(f"unknown format '{format}'; --format takes {', '.join(WRITERS)}")
        return format

    @contextmanager
    def senders(self) -> "Iterator[list[Sender]]":
        """The open senders; LinkError where a receiver can't be reached."""
        from edgegeo.runtime.senders import NmeaSender, open_link, open_mavlink

        # A watch goes on without clients; a single answer waits a while for the first one.
        wait_s = 0.0 if self.watch else 10.0
        with ExitStack() as stack:
            opened: list[Sender] = []
            if self.nmea is not None:
                opened.append(NmeaSender(open_link(self.nmea, wait_s)))
                stack.callback(opened[-1].close)
            if self.mavlink is not None:
                opened.append(open_mavlink(self.mavlink, self.message, origin_of(self.origin), wait_s))
                stack.callback(opened[-1].close)
            yield opened


def origin_of(text: str | None) -> "Position | None":
    """The position of LAT,LON; InputError if it is none."""
    from edgegeo.geo import Position

    if text is None:
        return None
    try:
        lat, lon = (float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"--origin takes LAT,LON in degrees, as 47.3,8.5, not {text!r:.40}") from None
    return Position(lat, lon)


def deliver(delivery: Delivery, photos: list[Path], text: str | None, format: str, opened: Opened) -> int:
    """Locate everything and hand it on; the exit code: 2 if a photo was unusable or a fix could not leave.

    The receivers are found before the model is loaded: a wrong address is told at once.
    """
    with delivery.senders() as senders:
        if delivery.watch is not None:
            return _follow(delivery.watch, opened, senders)
        ask = _ready(opened, senders)
        found: list[Located] = []
        failed: list[Failed] = []
        unsent = 0
        shown = format == "text" and delivery.output is None
        queries: list[Path | None] = [*photos] or [None]
        for photo in queries:
            one = _located(photo, text, ask, failed)
            if one is not None:
                found.append(one)
                if shown:
                    _show(one)
                unsent += not _send(one, senders)
    if found and not shown:
        _write(format, found, failed, delivery.output)
    return 2 if failed or unsent else 0


def _ready(opened: Opened, senders: "list[Sender]") -> Ask:
    locator, ask = opened()
    if senders and locator.model.bundle.manifest.source.get("planet_seed") is not None:
        note("this model knows a made-up planet: what it sends is for tests, not for a vehicle on Earth")
    return ask


def _located(photo: Path | None, text: str | None, ask: Ask, failed: "list[Failed]") -> "Located | None":
    """One answer; a photo that is unusable is named on stderr and added to `failed`."""
    from edgegeo.runtime.formats import Failed, Located

    name = (text or "")[:60] if photo is None else str(photo)
    try:
        return Located(name, ask(photo, text), datetime.now(timezone.utc))
    except InputError as error:
        failed.append(Failed(name, str(error)))
        note(f"error: {error if name in str(error) else f'{name}: {error}'}")
        return None


def _send(one: "Located", senders: "list[Sender]") -> bool:
    """Whether the fix left by every sender; says why not."""
    from edgegeo.runtime.senders import fix_of, withheld

    if not senders:
        return True
    why = withheld(one)
    if why is not None:
        note(f"{one.name}: nothing sent: {why}")
        return False
    fix = fix_of(one)
    left = 0
    for sender in senders:
        try:
            sender.send(fix)
            left += 1
        except LinkError as error:
            note(f"{one.name}: {error}")
    return left == len(senders)


def _follow(folder: Path, opened: Opened, senders: "list[Sender]") -> int:
    from edgegeo.runtime.watch import Watch

    watch = Watch(folder)
    ask = _ready(opened, senders)
    note(f"watching {folder} for new photos ({len(watch.old)} there already are left alone); Ctrl-C ends")
    located = sent = 0
    try:
        for photo in watch.photos():
            one = _located(photo, None, ask, [])
            if one is not None:
                _show(one)
                located += 1
                sent += _send(one, senders)
    except KeyboardInterrupt:
        note(f"stopped: {located} photos located" + (f", {sent} fixes sent" if senders else ""))
    return 0


def _show(one: "Located") -> None:
    from edgegeo.runtime.formats import document

    sys.stdout.write(document("text", [one]))
    sys.stdout.flush()


def _write(format: str, found: "list[Located]", failed: "list[Failed]", output: Path | None) -> None:
    from edgegeo.cli.files import write_whole
    from edgegeo.runtime.formats import document

    # Names of files may be in no encoding; in a document they have to be in this one.
    data = document(format, found, failed).encode("utf-8", errors="replace")
    if output is None:
        sys.stdout.write(data.decode("utf-8"))
        return
    write_whole(output, lambda draft: draft.write_bytes(data))
    note(f"wrote {output}: {len(found)} answers" + (f", {len(failed)} failed" if failed else ""))
