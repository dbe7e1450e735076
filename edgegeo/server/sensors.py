"""Power, temperature, GPU load and power mode of the machine, read from the kernel's files on every scrape.

What a machine does not have, or will not tell just now, has no series: a missing sensor is never 0. Where the files
stand is looked up once.

Sources: Linux's hwmon and thermal sysfs ABI; NVIDIA Jetson Linux Developer Guide, "Power and Performance" (INA3221
rails, nvpmodel); the GPU driver's `load` is in thousandths.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_GPU = re.compile(r"\.gpu$|\.g[a-z]\d+b$")
"""Devices of Jetson GPUs in devfreq, as 17000000.gpu or 17000000.gv11b."""

_INA3221_RAILS = ("1", "2", "3")
"""Beyond them the driver shows the voltages of the shunts and a sum of currents."""

_MODE = re.compile(r"pmode:(\d+)")
_PLAIN = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True)
class _Rail:
    """One supply rail of a power monitor chip."""

    name: str
    chip: str
    volts: Path | None
    """Millivolts."""
    amperes: Path | None
    """Milliamperes."""
    watts: Path | None
    """Microwatts, where the chip multiplies itself."""


class Sensors(Collector):
    """The machine's sensors as Prometheus series."""

    def __init__(self, root: Path = Path("/")) -> None:
        """`root`: where /sys, /etc and /var are looked for."""
        self._zones = [
            (zone.name, kind, zone / "temp")
            for zone in _listed(root / "sys/class/thermal", "thermal_zone*")
            if (kind := _text(zone / "type"))
        ]
        monitors = _listed(root / "sys/class/hwmon", "hwmon*")
        self._rails = [rail for chip in monitors if _text(chip / "name").startswith("ina") for rail in _rails(chip)]
        self._gpus = [gpu for gpu in _listed(root / "sys/class/devfreq", "*") if _GPU.search(gpu.name)]
        self._mode = root / "var/lib/nvpmodel/status"
        self._mode_names = _mode_names(root / "etc/nvpmodel.conf")

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read everything once."""
        yield from (family for family in self._families() if family.samples)

    def _families(self) -> Iterator[GaugeMetricFamily]:
        heat = GaugeMetricFamily("edgegeo_temperature_celsius", "Thermal zones.", labels=("zone", "type"))
        for zone, kind, file in self._zones:
            _add(heat, (zone, kind), _number(file), 1e-3)
        yield heat
        yield from self._power()
        load = GaugeMetricFamily("edgegeo_gpu_load_ratio", "Share of time the GPU is busy.", labels=("gpu",))
        clock = GaugeMetricFamily("edgegeo_gpu_frequency_hertz", "Clock of the GPU.", labels=("gpu",))
        for gpu in self._gpus:
            _add(load, (gpu.name,), _number(gpu / "device/load"), 1e-3)
            _add(clock, (gpu.name,), _number(gpu / "cur_freq"), 1.0)
        yield from (load, clock)
        mode = GaugeMetricFamily("edgegeo_power_mode_info", "1, with nvpmodel's mode.", labels=("mode", "name"))
        if found := _MODE.search(_text(self._mode)):
            number = int(found[1])
            mode.add_metric((str(number), self._mode_names.get(number, "")), 1)
        yield mode

    def _power(self) -> Iterator[GaugeMetricFamily]:
        labels = ("rail", "chip")
        watts = GaugeMetricFamily("edgegeo_power_watts", "Power of a supply rail.", labels=labels)
        volts = GaugeMetricFamily("edgegeo_rail_volts", "Voltage of a supply rail.", labels=labels)
        amperes = GaugeMetricFamily("edgegeo_rail_amperes", "Current of a supply rail.", labels=labels)
        for rail in self._rails:
            named = (rail.name, rail.chip)
            millivolts, milliamperes, microwatts = map(_number, (rail.volts, rail.amperes, rail.watts))
            _add(volts, named, millivolts, 1e-3)
            _add(amperes, named, milliamperes, 1e-3)
            if microwatts is not None:
                _add(watts, named, microwatts, 1e-6)
            elif millivolts is not None and milliamperes is not None:
                _add(watts, named, millivolts * milliamperes, 1e-6)
        yield from (watts, volts, amperes)


def _rails(chip: Path) -> Iterator[_Rail]:
    """The rails of one hwmon folder: every channel that has a current."""
    # The address on the bus stays the same from start to start, the number of the hwmon does not.
    device = (chip / "device").resolve().name if (chip / "device").exists() else chip.name
    for current in _listed(chip, "curr*_input"):
        channel = current.name[len("curr") : -len("_input")]
        if _text(chip / "name") == "ina3221" and channel not in _INA3221_RAILS:
            continue
        if _text(chip / f"in{channel}_enable") == "0":
            continue
        label = _text(chip / f"in{channel}_label") or _text(chip / f"curr{channel}_label") or f"channel {channel}"
        voltage, power = chip / f"in{channel}_input", chip / f"power{channel}_input"
        yield _Rail(label, device, voltage if voltage.exists() else None, current, power if power.exists() else None)


def _mode_names(file: Path) -> dict[int, str]:
    pattern = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", re.MULTILINE)
    return {int(number): name for number, name in pattern.findall(_content(file))}


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Also what a sensor says while its part of the chip sleeps (EAGAIN, EIO).
        return ""


def _text(file: Path) -> str:
    return _PLAIN.sub("", _content(file).strip())[:80]


def _number(file: Path | None) -> float | None:
    try:
        return None if file is None else float(_text(file))
    except ValueError:
        return None


def _add(family: GaugeMetricFamily, labels: tuple[str, ...], value: float | None, unit: float) -> None:
    if value is not None:
        family.add_metric(labels, value * unit)
