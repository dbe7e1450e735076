"""Facts of the machine, from files laid out as the kernel lays them out, and from this machine."""

from pathlib import Path

from edgegeo.bench.machine import describe_machine, same_machine, temperature_c, versions


def lay(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")


def test_every_fact_that_is_told(tmp_path: Path) -> None:
    clocks = "sys/devices/system/cpu/cpu0/cpufreq"
    lay(
        tmp_path,
        {
            "proc/cpuinfo": "processor : 0\nFeatures : fp asimd asimddp i8mm unheard-of\n",
            "proc/meminfo": "MemTotal:        7802000 kB\nMemFree: 1 kB",
            f"{clocks}/scaling_governor": "schedutil",
            f"{clocks}/scaling_max_freq": "1510400",
            "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
            "var/lib/nvpmodel/status": "pmode:0001",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=1 NAME=7W >",
            ".dockerenv": "",
            "sys/class/thermal/thermal_zone0/temp": "41000",
            "sys/class/thermal/thermal_zone1/temp": "48500",
            "sys/class/thermal/thermal_zone2/temp": "",
        },
    )
    facts = describe_machine(tmp_path)
    assert facts["flags"] == ["asimd", "asimddp", "i8mm"]
    assert (facts["memory_gb"], facts["governor"], facts["max_mhz"], facts["turbo"]) == (7.4, "schedutil", 1510, "off")
    assert facts["power_mode"] == {"number": 1, "name": "7W"}
    assert (facts["board"], facts["container"]) == ("NVIDIA Jetson Orin Nano", "docker")
    assert temperature_c(tmp_path) == 48.5


def test_what_is_not_told_is_left_out(tmp_path: Path) -> None:
    facts = describe_machine(tmp_path)
    assert {"cpu", "cores", "python", "system"} <= set(facts)
    assert not {"governor", "memory_gb", "power_mode", "container", "board", "flags"} & set(facts)
    assert temperature_c(tmp_path) is None


def test_machines_are_told_apart_and_kernels_forgiven() -> None:
    one = {"cpu": "A", "cores": 2, "machine": "x86_64", "memory_gb": 7.9, "system": "Linux 5"}
    assert same_machine(one, {**one, "memory_gb": 7.7, "system": "Linux 6"}) == []
    assert same_machine(one, {**one, "cores": 4, "memory_gb": 15.6}) == ["cores: 2 and 4", "memory gb: 7.9 and 15.6"]
    assert same_machine(one, {**one, "gpus": ["H200"]}) == ["gpus: None and ['H200']"]


def test_versions_name_the_sources() -> None:
    assert len(versions()["code"]) == 12
    assert versions()["onnxruntime"]
