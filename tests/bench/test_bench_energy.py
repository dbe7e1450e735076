"""Meters of energy, on files laid out as the kernel lays them out; power modes."""

import os
import stat
import time
from pathlib import Path

import pytest

from edgegeo.bench.energy import Energy, Nvml, Rails, Rapl, device_memory_mb, open_energy, open_nvml
from edgegeo.bench.power import check_modes, modes_restored, set_mode
from edgegeo.errors import DeviceError
from edgegeo.rails import find_rails, power_mode

RAPL = "sys/class/powercap/intel-rapl:0"
CHIP = "sys/class/hwmon/hwmon1"


def lay(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Two packages, a part of one, and the platform's own domain."""
    for number, name in (("0", "package-0"), ("1", "package-1"), ("0:0", "core"), ("2", "psys")):
        folder = f"sys/class/powercap/intel-rapl:{number}"
        lay(tmp_path, {f"{folder}/name": name, f"{folder}/energy_uj": "1000000"})
        lay(tmp_path, {f"{folder}/max_energy_range_uj": "262143328850"})
    return tmp_path


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """An Orin Nano's INA3221: the whole board, and two parts of it."""
    lay(tmp_path, {f"{CHIP}/name": "ina3221"})
    for channel, (label, volts, amperes) in enumerate((("VDD_IN", 5000, 2000), ("VDD_SOC", 5000, 400)), start=1):
        lay(tmp_path, {f"{CHIP}/in{channel}_label": label, f"{CHIP}/in{channel}_input": str(volts)})
        lay(tmp_path, {f"{CHIP}/curr{channel}_input": str(amperes)})
    return tmp_path


def test_packages_of_processors_are_added_and_their_parts_are_not(server: Path) -> None:
    energy = open_energy(server, gpus=False)
    assert [meter.name for meter in energy.meters] == ["RAPL package-0", "RAPL package-1"]
    with energy.counted():
        lay(server, {f"{RAPL}/energy_uj": "3500000", "sys/class/powercap/intel-rapl:1/energy_uj": "2000000"})
    assert energy.joules == pytest.approx({"RAPL package-0": 2.5, "RAPL package-1": 1.0})
    watts = energy.watts()
    assert watts is not None
    assert watts == pytest.approx(3.5 / energy.seconds)


def test_a_counter_that_wraps(server: Path) -> None:
    lay(server, {f"{RAPL}/energy_uj": "262143000000"})
    meter = Rapl(server / RAPL)
    meter.start()
    lay(server, {f"{RAPL}/energy_uj": "671150"})
    assert meter.stop() == pytest.approx(1.0)


def test_a_counter_for_the_superuser_only(server: Path) -> None:
    for file in (server / "sys/class/powercap").glob("*/energy_uj"):
        file.unlink()
        file.mkdir()  # what is read as a file and can't be, whoever reads
    energy = open_energy(server, gpus=False)
    assert energy.meters == []
    assert "RAPL package-0 may be read by the superuser only" in energy.why_not()
    assert energy.idle_watts() is None


def test_a_meter_that_falls_silent_has_no_number(server: Path) -> None:
    energy = open_energy(server, gpus=False)
    with energy.counted():
        (server / RAPL / "energy_uj").unlink()
    assert list(energy.joules) == ["RAPL package-1"]


def test_the_rail_of_the_whole_board_counts_alone(orin: Path) -> None:
    energy = open_energy(orin, gpus=False)
    assert [meter.name for meter in energy.meters] == ["INA hwmon1: VDD_IN"]
    with energy.counted():
        time.sleep(0.1)
    # Ten watts from the first reading to the last, between which 0.1 s were slept.
    assert 0.99 <= sum(energy.joules.values()) <= 10.0 * energy.seconds
    idle = energy.idle_watts(0.05)
    assert idle is not None
    assert 0 < idle <= 10.0


def test_power_that_changes_is_added_up_by_trapezia(orin: Path) -> None:
    meter = Rails(find_rails(orin)[:1], period_s=1000.0)  # a first reading and a last one
    begun = time.monotonic()
    meter.start()
    started = time.monotonic()
    lay(orin, {f"{CHIP}/curr1_input": "6000"})
    time.sleep(0.05)
    stopping = time.monotonic()
    joules = meter.stop()
    assert 20 * (stopping - started) <= joules <= 20 * (time.monotonic() - begun)


def test_three_rails_make_up_an_agx(tmp_path: Path) -> None:
    lay(tmp_path, {f"{CHIP}/name": "ina3221"})
    for channel, label in enumerate(("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), start=1):
        lay(tmp_path, {f"{CHIP}/in{channel}_label": label, f"{CHIP}/in{channel}_input": "5000"})
        lay(tmp_path, {f"{CHIP}/curr{channel}_input": "1000"})
    other = "sys/class/hwmon/hwmon2"
    lay(tmp_path, {f"{other}/name": "ina3221", f"{other}/in2_label": "VDDQ_VDD2_1V8AO", f"{other}/in2_input": "5000"})
    lay(tmp_path, {f"{other}/curr2_input": "900"})
    [meter] = open_energy(tmp_path, gpus=False).meters
    assert meter.name == "INA hwmon1: VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"


def test_rails_that_sleep_leave_the_energy_unmeasured(orin: Path) -> None:
    lay(orin, {f"{CHIP}/curr1_input": "", f"{CHIP}/curr2_input": ""})
    energy = open_energy(orin, gpus=False)
    assert energy.meters == []
    assert energy.why_not() == "not measured: the INA rails give no reading"


def test_a_machine_without_meters_says_so(tmp_path: Path) -> None:
    assert open_energy(tmp_path, gpus=False).why_not().startswith("not measured: no RAPL")


class Driver:
    """NVML's calls as its reference gives them, for one GPU that has used so many millijoules."""

    class NVMLError(Exception):
        pass

    def __init__(self, *millijoules: int) -> None:
        self.readings = list(millijoules)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:
        if not self.readings:
            raise self.NVMLError("GPU is lost")
        return self.readings.pop(0)


def test_a_gpu_counts_by_its_driver() -> None:
    energy = Energy([Nvml(Driver(5_000, 7_000, 19_500), 0)])
    with energy.counted():
        pass
    assert energy.joules == {"NVML GPU 0": 12.5}
    with energy.counted():
        pass
    assert energy.joules == {}


def test_a_machine_without_a_driver_has_no_gpu_meter() -> None:
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert open_nvml() is None
        assert device_memory_mb(os.getpid()) is None
    else:
        pytest.skip("this machine has a driver")


@pytest.fixture
def modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two power modes, and an nvpmodel that changes them but refuses 2."""
    status = tmp_path / "var/lib/nvpmodel/status"
    listed = "".join(f"< POWER_MODEL ID={n} NAME={name} >\n" for n, name in ((0, "15W"), (1, "7W"), (2, "MAXN")))
    lay(tmp_path, {"var/lib/nvpmodel/status": "pmode:0000", "etc/nvpmodel.conf": listed})
    program = tmp_path / "bin" / "nvpmodel"
    lay(tmp_path, {"bin/nvpmodel": f'#!/bin/sh\n[ "$2" = 2 ] && echo "reboot required" >&2 && exit 1\n'
                   f'echo "pmode:000$2" > {status}\n'})  # fmt: skip
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_a_power_mode_is_set_seen_and_put_back(modes: Path) -> None:
    check_modes((0, 1), modes)
    with modes_restored((1,), modes):
        set_mode(1, modes)
        mode = power_mode(modes)
        assert mode is not None
        assert (mode.number, mode.name) == (1, "7W")
    assert (now := power_mode(modes)) is not None
    assert now.number == 0


def test_power_modes_that_can_not_be(modes: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DeviceError, match="no power mode 7; it has 0 15W, 1 7W, 2 MAXN"):
        check_modes((7,), modes)
    with pytest.raises(DeviceError, match=r"could not be set \(reboot required\)"):
        set_mode(2, modes)
    with pytest.raises(DeviceError, match="no Jetson"):
        check_modes((0,), tmp_path_factory.mktemp("empty"))
    check_modes((), tmp_path_factory.mktemp("empty"))
