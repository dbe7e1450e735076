"""What an export will need, as a person reads it."""

from typing import TYPE_CHECKING

from edgegeo.cli.output import say, table

if TYPE_CHECKING:
    from edgegeo.export.preview import Preview


def print_preview(seen: "Preview", whole: bool = False) -> None:
    """Print the estimates in a line; `whole`: every component, and what a layer-by-layer export would need."""
    if whole:
        rows = [(p.name, p.precision, ", ".join(p.roles), f"{p.megabytes:,.0f} MB") for p in seen.parts]
        table(("component", "precision", "roles", "size"), [*rows, ("bundle", "", "", f"{seen.bundle_mb:,.0f} MB")])
        kept = "mapped from their files" if seen.mapped else "in memory as float32"
        lines = [
            ("weights", f"{_gib(seen.weights_mb)} ({seen.parameters / 1e6:,.0f} M, {seen.dtype} on disk, {kept})"),
            ("largest matrix", f"{_gib(seen.matrix_mb)} while it is quantised"),
            ("a decoder layer", f"{_gib(seen.layer_mb)} in float32"),
            ("largest session", _gib(seen.session_mb)),
            ("most memory", f"{_gib(seen.memory_mb)} ({seen.when}); {_gib(seen.available_mb)} are free"),
            ("most disk", f"{_gib(seen.disk_mb)}; {_gib(seen.free_disk_mb)} are free"),
        ]
        if seen.picture_positions:
            lines.append(("a picture", f"up to {seen.picture_positions:,} of {seen.positions:,} prompt positions"))
        table(("needs", "about"), lines)
        say("it fits" if seen.fits else "it does not fit on this machine")
        _slow(seen)
        _long(seen)
        return
    say(
        f"{seen.name}: {seen.parameters / 1e6:,.0f} M parameters, a bundle of about {_gib(seen.bundle_mb)}; weights "
        f"{_gib(seen.weights_mb)}, largest matrix {_gib(seen.matrix_mb)}, largest session {_gib(seen.session_mb)}, "
        f"most memory {_gib(seen.memory_mb)} of {_gib(seen.available_mb)} free ({seen.when}), "
        f"disk {_gib(seen.disk_mb)} of {_gib(seen.free_disk_mb)}"
    )
    _slow(seen)
    _long(seen)


def _slow(seen: "Preview") -> None:
    if seen.fits and not seen.roomy:
        say(f"slow: {_gib(seen.weights_mb)} of weights don't fit beside it and will be read from disk again and again")


def _long(seen: "Preview") -> None:
    if seen.smaller:
        two = ", so two do not fit for re-ranking" if 2 * seen.picture_positions >= seen.positions else ""
        say(
            f"long pictures: one may take {seen.picture_positions:,} of {seen.positions:,} prompt positions{two}; each "
            f"costs time and memory, {seen.smaller} bounds them"
        )


def _gib(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GiB" if megabytes >= 1024 else f"{megabytes:.0f} MB"
