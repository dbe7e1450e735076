"""Supply rails and power modes, from the kernel's files: what a board draws, and how much it may draw.

Sources: Linux's hwmon sysfs ABI; NVIDIA Jetson Linux Developer Guide, "Power and Performance" (INA3221, nvpmodel).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_INA3221_RAILS = ("1", "2", "3")
"""Beyond them the driver shows the voltages of the shunts and a sum of currents."""
_MODE = re.compile(r"pmode:(\d+)")
_MODEL = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", re.MULTILINE)
_PLAIN = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True)
class Rail:
    """One supply rail of a power monitor chip."""

    name: str
    chip: str
    volts_file: Path | None
    """Millivolts."""
    amperes_file: Path | None
    """Milliamperes."""
    watts_file: Path | None
    """Microwatts, where the chip multiplies itself."""

    def volts(self) -> float | None:
        """Voltage now; None where the chip does not tell."""
        return _scaled(self.volts_file, 1e-3)

    def amperes(self) -> float | None:
        """Current now; None where the chip does not tell."""
        return _scaled(self.amperes_file, 1e-3)

    def watts(self) -> float | None:
        """Power now; None where the chip does not tell."""
        if (known := _scaled(self.watts_file, 1e-6)) is not None:
            return known
        volts, amperes = self.volts(), self.amperes()
        return None if volts is None or amperes is None else volts * amperes


@dataclass(frozen=True)
class PowerMode:
    """nvpmodel's mode."""

    number: int
    name: str
    """Empty where the configuration does not name it."""


def find_rails(root: Path = Path("/")) -> list[Rail]:
    """Every rail of the INA monitor chips (INA3221, INA219, ...) that the kernel shows; channels off are left out."""
    monitors = listed(root / "sys/class/hwmon", "hwmon*")
    return [rail for chip in monitors if read_text(chip / "name").startswith("ina") for rail in _rails(chip)]


def power_mode(root: Path = Path("/")) -> PowerMode | None:
    """The mode in force; None where there is no nvpmodel."""
    found = _MODE.search(read_text(root / "var/lib/nvpmodel/status"))
    if not found:
        return None
    number = int(found[1])
    return PowerMode(number, power_modes(root).get(number, ""))


def power_modes(root: Path = Path("/")) -> dict[int, str]:
    """Number -> name of every mode that nvpmodel's configuration has."""
    return {int(number): name for number, name in _MODEL.findall(_content(root / "etc/nvpmodel.conf"))}


def listed(folder: Path, pattern: str) -> list[Path]:
    """What matches in a folder of the kernel's, by name; nothing where it can't be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def read_text(file: Path) -> str:
    """A kernel file's printable text, at most 80 characters; empty where it can't be read."""
    return _PLAIN.sub("", _content(file).strip())[:80]


def read_number(file: Path | None) -> float | None:
    """A kernel file that holds one number; None where it does not."""
    try:
        return None if file is None else float(read_text(file))
    except ValueError:
        return None


def _rails(chip: Path) -> Iterator[Rail]:
    """The rails of one hwmon folder: every channel that has a current."""
    # The address on the bus stays the same from start to start, the number of the hwmon does not.
    device = (chip / "device").resolve().name if (chip / "device").exists() else chip.name
    for current in listed(chip, "curr*_input"):
        channel = current.name[len("curr") : -len("_input")]
        if read_text(chip / "name") == "ina3221" and channel not in _INA3221_RAILS:
            continue
        if read_text(chip / f"in{channel}_enable") == "0":
            continue
        label = read_text(chip / f"in{channel}_label") or read_text(chip / f"curr{channel}_label")
        voltage, power = chip / f"in{channel}_input", chip / f"power{channel}_input"
        yield Rail(
            label or f"channel {channel}", device, voltage if voltage.exists() else None, current,
            power if power.exists() else None,
        )  # fmt: skip


def _scaled(file: Path | None, unit: float) -> float | None:
    value = read_number(file)
    return None if value is None else value * unit


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Also what a sensor says while its part of the chip sleeps (EAGAIN, EIO).
        return ""
