"""Jetson's power modes: set when a sweep asks for it, and put back as they were."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgegeo.errors import DeviceError
from edgegeo.rails import power_mode, power_modes

COMMAND = "nvpmodel"
_SECONDS = 60.0


def check_modes(wanted: tuple[int, ...], root: Path = Path("/")) -> None:
    """DeviceError unless this machine has every mode."""
    if not wanted:
        return
    if power_mode(root) is None:
        raise DeviceError("this machine has no power modes (no nvpmodel, so no Jetson); leave the power mode out")
    known = power_modes(root)
    if unknown := [mode for mode in wanted if mode not in known]:
        named = ", ".join(f"{number} {name}" for number, name in known.items())
        raise DeviceError(f"this machine has no power mode {unknown[0]}; it has {named}")


def set_mode(number: int, root: Path = Path("/")) -> None:
    """Change the mode, and see that it changed; DeviceError otherwise."""
    if (now := power_mode(root)) is not None and now.number == number:
        return
    try:
        # Some changes need a restart; nvpmodel then asks, and hears no.
        done = subprocess.run(
            [COMMAND, "-m", str(number)], input="no\n", capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise DeviceError(f"{COMMAND} is not on the PATH; set the power mode yourself, and leave it out here") from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{COMMAND} -m {number} gave no answer within {_SECONDS:.0f} s") from None
    now = power_mode(root)
    if done.returncode or now is None or now.number != number:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it may need a restart, or sudo"]
        raise DeviceError(f"power mode {number} could not be set ({said[0][:200]}); try: sudo {COMMAND} -m {number}")


@contextmanager
def modes_restored(wanted: tuple[int, ...], root: Path = Path("/")) -> Iterator[None]:
    """Leave the machine in the mode it was in."""
    before = power_mode(root) if wanted else None
    try:
        yield
    finally:
        if before is not None:
            set_mode(before.number, root)
