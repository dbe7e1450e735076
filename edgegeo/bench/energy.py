"""Energy of a piece of work by the machine's own meters: RAPL, NVIDIA's NVML, INA3221 rails; or none, and why.

Sources: Linux's powercap sysfs ABI (energy_uj and its wrap); NVML API reference (nvmlDeviceGetTotalEnergyConsumption);
NVIDIA Jetson Linux Developer Guide, "Power and Performance" (which rails make up a module).
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from edgegeo.rails import Rail, find_rails, listed, read_number, read_text

PERIOD_S = 0.02
"""Between two readings of a rail: its chip averages over milliseconds, a reading takes about one."""
_TOTALS = ("VDD_IN", "VIN_SYS_5V0", "VDD_GPU_SOC", "VDD_CPU_CV", "POM_5V_IN")
"""Rails that make up a module: VDD_IN alone on Orin NX and Nano, three of them on AGX Orin; others are their parts."""


class Meter(Protocol):
    """Something that counts energy."""

    name: str

    def start(self) -> None:
        """Begin counting; OSError from a meter that fell silent."""

    def stop(self) -> float:
        """Joules since `start`; OSError likewise."""


class Rapl:
    """One package of a processor, by a counter that the kernel reads from it."""

    def __init__(self, folder: Path) -> None:
        self.name = f"RAPL {read_text(folder / 'name')}"
        self._counter = folder / "energy_uj"
        self._range = read_number(folder / "max_energy_range_uj") or 0.0
        self._begun = self._read()

    def start(self) -> None:
        """Begin counting."""
        self._begun = self._read()

    def stop(self) -> float:
        """Joules since `start`; the counter may wrap once, which takes minutes."""
        used = self._read() - self._begun
        return (used if used >= 0 else used + self._range) * 1e-6

    def _read(self) -> float:
        # Since CVE-2020-8694 only the superuser may read it.
        return float(self._counter.read_text())


class Nvml:
    """One NVIDIA GPU, by the driver's counter (Volta and newer)."""

    def __init__(self, library: Any, index: int) -> None:
        self._library = library
        self._device = library.nvmlDeviceGetHandleByIndex(index)
        self.name = f"NVML GPU {index}"
        self._begun = self._read()

    def start(self) -> None:
        """Begin counting."""
        self._begun = self._read()

    def stop(self) -> float:
        """Joules since `start`."""
        return self._read() - self._begun

    def _read(self) -> float:
        try:
            return float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._device)) * 1e-3
        except self._library.NVMLError as error:
            raise OSError(str(error)) from None


class Rails:
    """The supply rails of a board, read again and again by a thread; power times time, by trapezia."""

    def __init__(self, rails: Sequence[Rail], period_s: float = PERIOD_S) -> None:
        chips = sorted({rail.chip for rail in rails})
        self.name = f"INA {', '.join(chips)}: {' + '.join(rail.name for rail in rails)}"
        self._rails = rails
        self._period = period_s
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._readings: list[tuple[float, float]] = []
        if self._watts() is None:
            raise OSError("silent")

    def start(self) -> None:
        """Begin reading."""
        self._done.clear()
        self._readings = []
        self._take()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Joules since `start`."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self._take()
        if len(self._readings) < 2:
            raise OSError("silent")
        pairs = zip(self._readings, self._readings[1:], strict=False)
        return sum((one[1] + two[1]) / 2 * (two[0] - one[0]) for one, two in pairs)

    def _follow(self) -> None:
        while not self._done.wait(self._period):
            self._take()

    def _take(self) -> None:
        watts = self._watts()
        if watts is not None:
            self._readings.append((time.monotonic(), watts))

    def _watts(self) -> float | None:
        found = [rail.watts() for rail in self._rails]
        known = [watts for watts in found if watts is not None]
        return sum(known) if len(known) == len(found) else None


class Energy:
    """Every meter of the machine, and what one stretch of work took by them."""

    def __init__(self, meters: Sequence[Meter], silent: Sequence[str] = ()) -> None:
        self.meters = meters
        self.silent = silent
        """Meters that are there and can't be read, with the reason."""
        self.joules: dict[str, float] = {}
        """Meter -> joules of the last stretch."""
        self.seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what happens inside."""
        begun = time.monotonic()
        awake = []
        for meter in self.meters:
            try:
                meter.start()
                awake.append(meter)
            except OSError:
                continue
        yield
        self.joules = {}
        for meter in awake:
            try:
                self.joules[meter.name] = meter.stop()
            except OSError:
                continue
        self.seconds = time.monotonic() - begun

    def watts(self) -> float | None:
        """Mean power of the last stretch, all meters together; None where none counted."""
        return sum(self.joules.values()) / self.seconds if self.joules and self.seconds else None

    def idle_watts(self, seconds: float = 0.3) -> float | None:
        """Mean power while this process waits; None without meters, and then nothing is waited for."""
        if not self.meters:
            return None
        with self.counted():
            time.sleep(seconds)
        return self.watts()

    def why_not(self) -> str:
        """What a row says that has no energy."""
        return f"not measured: {'; '.join(self.silent) or 'no RAPL, NVML or INA3221 on this machine'}"


def open_energy(root: Path = Path("/"), gpus: bool = True) -> Energy:
    """The meters of this machine: rails where a board has them, else processor packages and NVIDIA GPUs."""
    silent: list[str] = []
    rails = find_rails(root)
    total = [rail for rail in rails if rail.name == "VDD_IN"] or [rail for rail in rails if rail.name in _TOTALS]
    if rails:
        try:
            # Rails of a board count everything on it: another meter beside them would count twice.
            return Energy([Rails(total or rails)])
        except OSError:
            silent.append("the INA rails give no reading")
    meters: list[Meter] = []
    for folder in listed(root / "sys/class/powercap", "intel-rapl:*"):
        # Packages only ("intel-rapl:0"): what lies within one ("intel-rapl:0:1") is counted with it.
        if folder.name.count(":") != 1 or not read_text(folder / "name").startswith("package"):
            continue
        try:
            meters.append(Rapl(folder))
        except (OSError, ValueError):
            silent.append(f"RAPL {read_text(folder / 'name')} may be read by the superuser only")
    if gpus:
        meters += _gpu_meters(silent)
    return Energy(meters, silent)


def _gpu_meters(silent: list[str]) -> list[Meter]:
    library = open_nvml()
    if library is None:
        return []
    found: list[Meter] = []
    for index in range(library.nvmlDeviceGetCount()):
        try:
            found.append(Nvml(library, index))
        except (OSError, library.NVMLError) as error:
            silent.append(f"NVML GPU {index}: {error}")
    return found


def open_nvml() -> Any:
    """NVIDIA's management library, started; None where package, driver or GPU are missing."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def device_memory_mb(process: int) -> float | None:
    """MB (2**20 bytes) of GPU memory that a process holds, by NVML; None where that is not told."""
    library = open_nvml()
    if library is None:
        return None
    used = []
    try:
        for index in range(library.nvmlDeviceGetCount()):
            device = library.nvmlDeviceGetHandleByIndex(index)
            found = library.nvmlDeviceGetComputeRunningProcesses(device)
            used += [one.usedGpuMemory for one in found if one.pid == process and one.usedGpuMemory]
    except library.NVMLError:
        return None
    return sum(used) / 2**20 if used else None
