"""Power, temperature, GPU load and power mode of the machine, read from the kernel's files on every scrape.

What a machine does not have, or will not tell just now, has no series: a missing sensor is never 0. Where the files
stand is looked up once.

Sources: Linux's hwmon and thermal sysfs ABI; the GPU driver's `load` is in thousandths.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from edgegeo.rails import find_rails, listed, power_mode, read_number, read_text

_GPU = re.compile(r"\.gpu$|\.g[a-z]\d+b$")
"""Devices of Jetson GPUs in devfreq, as 17000000.gpu or 17000000.gv11b."""


class Sensors(Collector):
    """The machine's sensors as Prometheus series."""

    def __init__(self, root: Path = Path("/")) -> None:
        """`root`: where /sys, /etc and /var are looked for."""
        self._zones = [
            (zone.name, kind, zone / "temp")
            for zone in listed(root / "sys/class/thermal", "thermal_zone*")
            if (kind := read_text(zone / "type"))
        ]
        self._rails = find_rails(root)
        self._gpus = [gpu for gpu in listed(root / "sys/class/devfreq", "*") if _GPU.search(gpu.name)]
        self._root = root

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read everything once."""
        yield from (family for family in self._families() if family.samples)

    def _families(self) -> Iterator[GaugeMetricFamily]:
        heat = GaugeMetricFamily("edgegeo_temperature_celsius", "Thermal zones.", labels=("zone", "type"))
        for zone, kind, file in self._zones:
            _add(heat, (zone, kind), read_number(file), 1e-3)
        yield heat
        yield from self._power()
        load = GaugeMetricFamily("edgegeo_gpu_load_ratio", "Share of time the GPU is busy.", labels=("gpu",))
        clock = GaugeMetricFamily("edgegeo_gpu_frequency_hertz", "Clock of the GPU.", labels=("gpu",))
        for gpu in self._gpus:
            _add(load, (gpu.name,), read_number(gpu / "device/load"), 1e-3)
            _add(clock, (gpu.name,), read_number(gpu / "cur_freq"))
        yield from (load, clock)
        mode = GaugeMetricFamily("edgegeo_power_mode_info", "1, with nvpmodel's mode.", labels=("mode", "name"))
        if found := power_mode(self._root):
            mode.add_metric((str(found.number), found.name), 1)
        yield mode

    def _power(self) -> Iterator[GaugeMetricFamily]:
        labels = ("rail", "chip")
        watts = GaugeMetricFamily("edgegeo_power_watts", "Power of a supply rail.", labels=labels)
        volts = GaugeMetricFamily("edgegeo_rail_volts", "Voltage of a supply rail.", labels=labels)
        amperes = GaugeMetricFamily("edgegeo_rail_amperes", "Current of a supply rail.", labels=labels)
        for rail in self._rails:
            named = (rail.name, rail.chip)
            _add(volts, named, rail.volts())
            _add(amperes, named, rail.amperes())
            _add(watts, named, rail.watts())
        yield from (watts, volts, amperes)


def _add(family: GaugeMetricFamily, labels: tuple[str, ...], value: float | None, unit: float = 1.0) -> None:
    if value is not None:
        family.add_metric(labels, value * unit)
