"""The doctor on fabricated machines: Jetsons, control groups, heat, clocks, libraries."""

from pathlib import Path

import pytest

from edgegeo.field.examine import examine
from edgegeo.field.finding import FAIL, OK, WARN, Root
from edgegeo.field.hardware import examine_cpu, examine_memory, examine_speed, examine_threads, read_memory
from edgegeo.field.jetson import examine_gpu, find_gpu, power_mode

R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 2025"
CONF = (
    "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
)
MEMINFO = "MemTotal:       7802880 kB\nMemAvailable:    {free} kB\nSwapTotal:  {swap} kB\nSwapFree:  {left} kB\n"
CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"


def machine(folder: Path, **files: str) -> Root:
    """A root with these files; in names, `__` stands for `/`."""
    for name, text in files.items():
        write(folder, name.replace("__", "/"), text)
    return Root(folder)


def write(folder: Path, name: str, text: str = "") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def jetson(folder: Path, release: str = R36, cuda: str = "12.6.68") -> Root:
    write(folder, "etc/nv_tegra_release", release)
    write(folder, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0")
    write(folder, "var/lib/dpkg/status",
          "Package: nvidia-jetpack\nStatus: install ok\nVersion: 6.2+b77\n\nPackage: zlib\nVersion: 1.3\n")  # fmt: skip
    for name in (f"libcudart.so.{cuda}", "libcudart.so.12", "libcublas.so.12.6.1.4"):
        write(folder, f"usr/local/cuda-12.6/lib64/{name}")
    for name in ("libcudnn.so.9.3.0", "libnvinfer.so.10.3.0", "libnvinfer.so"):
        write(folder, f"usr/lib/aarch64-linux-gnu/{name}")
    return Root(folder)


def test_a_jetson_and_its_libraries_are_recognised(tmp_path: Path) -> None:
    gpu = find_gpu(jetson(tmp_path))
    assert (gpu.l4t, gpu.jetpack, gpu.driver) == ("36.4.3", "6.2", "")
    assert gpu.board == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert gpu.libraries == {"CUDA": "12.6.68", "cuBLAS": "12.6.1.4", "cuDNN": "9.3.0", "TensorRT": "10.3.0"}
    board, found = examine_gpu(gpu, "1.23.0", cuda=True)
    assert (board.level, found.level, found.remedy) == (OK, OK, "")
    assert "JetPack 6.2 (L4T 36.4.3)" in board.found


@pytest.mark.parametrize(
    ("onnxruntime", "cuda", "remedy"),
    [
        ("", False, "NVIDIA's onnxruntime-gpu wheel for this JetPack"),
        ("1.31.1", False, "built for CUDA 13"),
        ("1.23.0", False, "CUDA does not start"),
    ],
)
def test_a_gpu_that_stays_idle_comes_with_the_reason(tmp_path: Path, onnxruntime: str, cuda: bool, remedy: str) -> None:
    found = list(examine_gpu(find_gpu(jetson(tmp_path)), onnxruntime, cuda))[-1]
    assert found.level == WARN
    assert remedy in found.remedy


def test_missing_libraries_are_named(tmp_path: Path) -> None:
    root = jetson(tmp_path)
    (tmp_path / "usr/lib/aarch64-linux-gnu/libcudnn.so.9.3.0").unlink()
    found = list(examine_gpu(find_gpu(root), "1.23.0", False))[-1]
    assert found.remedy.startswith("cuDNN not found: sudo apt install nvidia-jetpack")
    wheel = tmp_path / "site/nvidia/cudnn/lib"
    write(wheel, "libcudnn.so.9")
    assert find_gpu(root, [wheel]).libraries["cuDNN"] == "9"


def test_old_jetpacks_and_releases_without_their_package(tmp_path: Path) -> None:
    old = find_gpu(machine(tmp_path / "old", etc__nv_tegra_release="# R35 (release), REVISION: 4.1, GCID: 1"))
    assert old.jetpack == "5"
    assert next(examine_gpu(old, "", False)).level == FAIL
    thor = find_gpu(machine(tmp_path / "thor", etc__nv_tegra_release="# R38 (release), REVISION: 2.0, GCID: 1"))
    assert (thor.l4t, thor.jetpack) == ("38.2.0", "7")
    assert next(examine_gpu(thor, "1.31.1", True)).level == OK


def test_a_desktop_card_and_none_at_all(tmp_path: Path) -> None:
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\nGCC version: 12"
    card = find_gpu(machine(tmp_path / "card", proc__driver__nvidia__version=text))
    assert card.driver == "570.86.15"
    assert "edgegeo[gpu] instead of edgegeo[cpu]" in list(examine_gpu(card, "", False))[-1].remedy
    none = list(examine_gpu(find_gpu(Root(tmp_path / "none")), "", False))
    assert [(one.topic, one.level) for one in none] == [("gpu", OK)]


def test_power_mode_names_the_fastest_one(tmp_path: Path) -> None:
    root = machine(tmp_path, var__lib__nvpmodel__status="pmode:0001", etc__nvpmodel_conf="")
    write(tmp_path, "etc/nvpmodel.conf", CONF)
    slow = power_mode(root)
    assert slow is not None
    assert (slow.level, slow.found) == (WARN, "mode 1, 25W")
    assert slow.remedy.endswith("sudo nvpmodel -m 2")
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0002")
    fast = power_mode(root)
    assert fast is not None
    assert fast.level == OK
    assert power_mode(Root(tmp_path / "nowhere")) is None


@pytest.mark.parametrize(
    ("kind", "flags", "level", "said"),
    [
        ("aarch64", "Features : fp asimd asimdhp asimddp", OK, "dotprod, fp16"),
        ("aarch64", "Features : fp asimd", WARN, "no known extensions"),
        ("x86_64", "flags : avx2 avx512f avx512_vnni", OK, "AVX512-VNNI"),
        ("x86_64", "flags : avx2 avx_vnni", OK, "VNNI"),
        ("x86_64", "flags : avx2", WARN, "AVX2"),
        ("x86_64", "", OK, "no known extensions"),
    ],
)
def test_instructions_that_make_int8_fast(tmp_path: Path, kind: str, flags: str, level: str, said: str) -> None:
    found = examine_cpu(machine(tmp_path, proc__cpuinfo=f"processor : 0\n{flags}\n"), kind, 4)
    assert found.level == level
    assert said in found.found
    assert bool(found.remedy) == (level == WARN)


def test_threads_are_told_by_the_size_of_a_graph() -> None:
    assert "4 for a large graph, 1 for one of up to 16 MB of weights; --threads N" in examine_threads(4).found
    assert examine_threads(1).found == "1; --threads N is for all of them"


def test_memory_within_a_control_group(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__meminfo=MEMINFO.format(free=6_000_000, swap=0, left=0))
    assert examine_memory(read_memory(root)).found == "5.7 GiB free of 7.4 GiB, no swap"
    # The tighter limit stands above the group of the process itself; pages of files don't count as used.
    write(tmp_path, "proc/self/cgroup", "0::/system.slice/edgegeo.service")
    write(tmp_path, "sys/fs/cgroup/system.slice/edgegeo.service/memory.max", "max")
    write(tmp_path, "sys/fs/cgroup/system.slice/memory.max", str(700 * 2**20))
    write(tmp_path, "sys/fs/cgroup/system.slice/memory.current", str(500 * 2**20))
    write(tmp_path, "sys/fs/cgroup/system.slice/memory.stat", f"anon 1\ninactive_file {200 * 2**20}\n")
    memory = read_memory(root)
    assert (memory.limit, memory.available) == (700.0, 400.0)
    found = examine_memory(memory)
    assert found.level == WARN
    assert "control group" in found.found
    write(tmp_path, "sys/fs/cgroup/system.slice/memory.current", str(890 * 2**20))
    assert examine_memory(read_memory(root)).level == FAIL


def test_memory_limits_of_older_control_groups_and_swap(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__meminfo=MEMINFO.format(free=6_000_000, swap=4_000_000, left=1_000_000),
                   proc__self__cgroup="5:cpu,memory:/docker/abc\n1:name=systemd:/")  # fmt: skip
    assert "the machine swaps" in examine_memory(read_memory(root)).remedy
    write(tmp_path, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", str(2**30))
    write(tmp_path, "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "0")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", str(2**63 - 4096))
    assert read_memory(root).limit == 1024


def test_a_control_groups_share_of_the_processor(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__self__cgroup="0::/a", proc__cpuinfo="")
    write(tmp_path, "sys/fs/cgroup/a/cpu.max", "150000 100000")
    assert "of which a control group allows 1.5" in examine_cpu(root, "x86_64", 4).found


def test_clocks(tmp_path: Path) -> None:
    facts = {"cpuinfo_max_freq": "1728000", "scaling_max_freq": "1728000", "scaling_governor": "schedutil",
             "scaling_driver": "tegra194"}  # fmt: skip
    for name, text in facts.items():
        write(tmp_path, f"{CPUFREQ}/{name}", text)
    write(tmp_path, "sys/class/devfreq/17000000.gpu/cur_freq", "306000000")
    write(tmp_path, "sys/class/devfreq/17000000.gpu/max_freq", "1020000000")
    (found,) = examine_speed(Root(tmp_path))
    assert (found.level, found.topic) == (OK, "clocks")
    assert "GPU 306 of 1020 MHz" in found.found
    write(tmp_path, f"{CPUFREQ}/scaling_max_freq", "1113600")
    assert next(examine_speed(Root(tmp_path))).remedy.startswith("the clock is capped")
    write(tmp_path, f"{CPUFREQ}/scaling_governor", "powersave")
    assert "lowest clock" in next(examine_speed(Root(tmp_path))).remedy
    # Under a pstate driver that governor does not hold the clock down.
    write(tmp_path, f"{CPUFREQ}/scaling_driver", "intel_pstate")
    write(tmp_path, f"{CPUFREQ}/scaling_max_freq", "1728000")
    assert next(examine_speed(Root(tmp_path))).level == OK


@pytest.mark.parametrize(("degrees", "level"), [(60, OK), (95, WARN), (101, FAIL)])
def test_heat_against_the_trip_points(tmp_path: Path, degrees: int, level: str) -> None:
    zone = "sys/class/thermal/thermal_zone1"
    for name, text in {"type": "gpu-thermal", "temp": str(1000 * degrees), "trip_point_0_type": "passive",
                       "trip_point_0_temp": "99000", "trip_point_1_type": "critical",
                       "trip_point_1_temp": "104500"}.items():  # fmt: skip
        write(tmp_path, f"{zone}/{name}", text)
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "pmic")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "-256000")
    (found,) = examine_speed(Root(tmp_path))
    assert (found.topic, found.level) == ("heat", level)
    assert f"{degrees} °C at most (gpu-thermal)" in found.found


def test_throttling_is_seen_whatever_the_temperature(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "50000")
    write(tmp_path, "sys/class/thermal/cooling_device3/type", "cpu-throttle-alert")
    write(tmp_path, "sys/class/thermal/cooling_device3/cur_state", "0")
    assert next(examine_speed(Root(tmp_path))).level == OK
    write(tmp_path, "sys/class/thermal/cooling_device3/cur_state", "1")
    (found,) = examine_speed(Root(tmp_path))
    assert "cpu-throttle-alert active" in found.found
    assert found.level == WARN


def test_the_whole_examination_of_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGEO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0000")
    write(tmp_path, "etc/nvpmodel.conf", CONF)
    write(tmp_path, "proc/meminfo", MEMINFO.format(free=6_000_000, swap=0, left=0))
    found = {one.topic: one for one in examine(jetson(tmp_path))}
    assert found["jetson"].level == OK
    assert found["memory"].found == "5.7 GiB free of 7.4 GiB, no swap"
    assert found["power mode"].level == WARN
    # The environment of the tests has onnxruntime for the CPU.
    assert "the GPU is idle" in found["gpu"].remedy
    assert {"processor", "python", "runtime", "onnxruntime", "data home", "bundle", "port", "clock"} <= set(found)
    assert all(one.remedy for one in found.values() if one.level != OK)
