"""The machine's sensors, on files laid out as a Jetson's kernel lays them out."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from edgegeo.server.sensors import Sensors


def lay(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """An Orin Nano: one INA3221 with a channel switched off, three zones, a GPU, a power mode."""
    lay(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "48312",
            "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": "-1500",
            "sys/class/thermal/thermal_zone2/type": "cv0-thermal",
            "sys/class/thermal/cooling_device0/type": "pwm-fan",
            "sys/class/hwmon/hwmon0/name": "pwmfan",
            "sys/class/hwmon/hwmon0/curr1_input": "1",
            "sys/devices/i2c-1/1-0040/hwmon/hwmon1/name": "ina3221",
            "sys/class/devfreq/17000000.gpu/cur_freq": "612000000",
            "sys/class/devfreq/17000000.gpu/device/load": "735",
            "sys/class/devfreq/60000000.emc/cur_freq": "2133000000",
            "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet",
            "etc/nvpmodel.conf": "# < POWER_MODEL ID=1 NAME=OLD >\n< POWER_MODEL ID=0 NAME=15W >\n"
            "< POWER_MODEL ID=1 NAME=7W >\nCPU_ONLINE CORE_0 1\n",
        },
    )
    chip = tmp_path / "sys/devices/i2c-1/1-0040/hwmon/hwmon1"
    rails = {"1": ("VDD_IN", 5056, 1200), "2": ("VDD_CPU_GPU_CV", 5048, 304), "3": ("VDD_SOC", 5048, 400)}
    for channel, (label, volts, amperes) in rails.items():
        lay(chip, {f"in{channel}_label": label, f"in{channel}_input": str(volts), f"in{channel}_enable": "1"})
        lay(chip, {f"curr{channel}_input": str(amperes)})
    lay(chip, {"in3_enable": "0", "in4_input": "6", "curr4_input": "1904", "in7_label": "sum of shunt voltages"})
    (chip / "device").symlink_to(tmp_path / "sys/devices/i2c-1/1-0040")
    (tmp_path / "sys/class/hwmon/hwmon1").symlink_to(chip)
    return tmp_path


def scraped(sensors: Sensors) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(sensors)
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name[:1] not in "#"}


def test_a_jetson(orin: Path) -> None:
    assert scraped(Sensors(orin)) == pytest.approx(
        {
            'edgegeo_temperature_celsius{type="cpu-thermal",zone="thermal_zone0"}': 48.312,
            'edgegeo_temperature_celsius{type="gpu-thermal",zone="thermal_zone1"}': -1.5,
            'edgegeo_power_watts{chip="1-0040",rail="VDD_IN"}': 5.056 * 1.2,
            'edgegeo_power_watts{chip="1-0040",rail="VDD_CPU_GPU_CV"}': 5.048 * 0.304,
            'edgegeo_rail_volts{chip="1-0040",rail="VDD_IN"}': 5.056,
            'edgegeo_rail_volts{chip="1-0040",rail="VDD_CPU_GPU_CV"}': 5.048,
            'edgegeo_rail_amperes{chip="1-0040",rail="VDD_IN"}': 1.2,
            'edgegeo_rail_amperes{chip="1-0040",rail="VDD_CPU_GPU_CV"}': 0.304,
            'edgegeo_gpu_load_ratio{gpu="17000000.gpu"}': 0.735,
            'edgegeo_gpu_frequency_hertz{gpu="17000000.gpu"}': 612e6,
            'edgegeo_power_mode_info{mode="1",name="7W"}': 1.0,
        }
    )


def test_a_machine_without_sensors_has_no_series(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(Sensors(tmp_path))
    assert generate_latest(registry) == b""


def test_values_are_read_anew_and_a_silent_sensor_is_left_out(orin: Path) -> None:
    sensors = Sensors(orin)
    zone = 'edgegeo_temperature_celsius{type="cpu-thermal",zone="thermal_zone0"}'
    assert scraped(sensors)[zone] == pytest.approx(48.312)
    lay(orin, {"sys/class/thermal/thermal_zone0/temp": "91000"})
    assert scraped(sensors)[zone] == pytest.approx(91.0)
    for silent in ("", "garbage"):
        lay(orin, {"sys/class/thermal/thermal_zone0/temp": silent})
        assert zone not in scraped(sensors)
    (orin / "sys/class/thermal/thermal_zone0/temp").unlink()
    (orin / "sys/devices/i2c-1/1-0040/hwmon/hwmon1/in1_input").unlink()
    (orin / "var/lib/nvpmodel/status").unlink()
    found = scraped(sensors)
    assert zone not in found
    assert 'edgegeo_power_watts{chip="1-0040",rail="VDD_IN"}' not in found
    assert 'edgegeo_rail_amperes{chip="1-0040",rail="VDD_IN"}' in found
    assert not any("power_mode" in name for name in found)


def test_a_chip_that_multiplies_itself(tmp_path: Path) -> None:
    lay(
        tmp_path / "sys/class/hwmon/hwmon3",
        {"name": "ina226", "in1_input": "12000", "curr1_input": "500", "power1_input": "6100000"},
    )
    found = scraped(Sensors(tmp_path))
    assert found['edgegeo_power_watts{chip="hwmon3",rail="channel 1"}'] == pytest.approx(6.1)


def test_labels_from_files_cant_break_the_format(tmp_path: Path) -> None:
    lay(tmp_path / "sys/class/thermal/thermal_zone0", {"type": 'a"b\\c\x00\u00e9' + "x" * 200, "temp": "1000"})
    (line,) = (name for name in scraped(Sensors(tmp_path)) if name.startswith("edgegeo"))
    assert line.startswith('edgegeo_temperature_celsius{type="a\\"b\\\\c')
    assert len(line) < 160
