"""Processor, memory, clocks and heat, from the kernel's files.

Sources: Linux's /proc (cpuinfo, meminfo), cgroup v2 and v1, cpufreq and thermal sysfs ABI.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgegeo.field.finding import FAIL, OK, WARN, Finding, Root
from edgegeo.field.jetson import power_mode
from edgegeo.runtime.sessions import SMALL_GRAPH

_MB = 2**20
LEAST_MB, LOW_MB = 200.0, 512.0
"""Free memory below which nothing opens (the packaged int8 model takes 84 MB at its peak), and only small models do."""
_WARM_C = 5.0
"""How near a trip point counts as hot."""
_UNLIMITED = 2**60


@dataclass(frozen=True)
class Memory:
    """MB of 2**20 bytes."""

    total: float
    available: float
    """What can be had without swapping, the control group's limit considered."""
    swap: float
    swap_used: float
    limit: float
    """Of the control group; infinite without one."""


def examine_cpu(root: Root, machine: str, cores: int) -> Finding:
    """Which 8-bit instructions there are: they decide whether int8 is fast."""
    flags = _flags(root)
    quota = _cpu_quota(root)
    said = f"{_model(root) or machine}, {cores} {'core' if cores == 1 else 'cores'}"
    if quota is not None and quota < cores:
        said += f", of which a control group allows {quota:g}"
    if machine.lower() in ("aarch64", "arm64"):
        known = [
            word for flag, word in (("asimddp", "dotprod"), ("i8mm", "i8mm"), ("asimdhp", "fp16")) if flag in flags
        ]
        slow = flags and "asimddp" not in flags
        remedy = "no dotprod: int8 is little faster than fp32; compare with: edgegeo bench --precision fp32,int8,int4"
    elif machine.lower() in ("x86_64", "amd64"):
        known = [word for flag, word in (("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx_vnni", "VNNI"),
                                         ("avx512_vnni", "AVX512-VNNI")) if flag in flags]  # fmt: skip
        slow = flags and not flags & {"avx_vnni", "avx512_vnni"}
        remedy = "no VNNI: int8 takes an exact but slower way; compare with: edgegeo bench --precision fp32,int8,int4"
    else:
        return Finding("processor", OK, said)
    said += f", {', '.join(known) or 'no known extensions'}"
    return Finding("processor", WARN if slow else OK, said, remedy if slow else "")


def examine_threads(cores: int) -> Finding:
    """How many threads the runtime takes by itself."""
    small = f" for a large graph, 1 for one of up to {SMALL_GRAPH >> 20} MB of weights" if cores > 1 else ""
    return Finding("threads", OK, f"{cores}{small}; --threads N is for all of them")


def read_memory(root: Root) -> Memory:
    """What the machine and the control group of this process leave."""
    facts = {}
    for line in root.text("proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if rest.split() and rest.split()[0].isdigit():
            facts[name] = int(rest.split()[0]) / 1024
    limit, room = _group(root)
    available = min(facts.get("MemAvailable", math.inf), room)
    swap = facts.get("SwapTotal", 0.0)
    return Memory(facts.get("MemTotal", math.inf), available, swap, swap - facts.get("SwapFree", swap), limit)


def examine_memory(memory: Memory) -> Finding:
    """Whether there is memory for a model."""
    if not math.isfinite(memory.available):
        return Finding("memory", OK, "the system does not tell")
    said = f"{_gib(memory.available)} free of {_gib(min(memory.total, memory.limit))}"
    if memory.limit < memory.total:
        said += f" (a control group's limit; the machine has {_gib(memory.total)})"
    said += f", swap {_gib(memory.swap_used)} of {_gib(memory.swap)} used" if memory.swap else ", no swap"
    if memory.available < LEAST_MB:
        return Finding("memory", FAIL, said, "stop other programs, or raise the control group's limit")
    if memory.available < LOW_MB:
        return Finding("memory", WARN, said, "room for small models only; see: edgegeo plan BUNDLE")
    if memory.swap and memory.swap_used > memory.swap / 2:
        return Finding("memory", WARN, said, "the machine swaps, so latencies will vary; stop other programs")
    return Finding("memory", OK, said)


def examine_speed(root: Root) -> Iterator[Finding]:
    """Power mode, clocks and heat, as far as the machine tells."""
    if mode := power_mode(root):
        yield mode
    yield from _clocks(root)
    yield from _heat(root)


def _clocks(root: Root) -> Iterator[Finding]:
    base = "sys/devices/system/cpu/cpu0/cpufreq"
    most, allowed = root.number(f"{base}/cpuinfo_max_freq"), root.number(f"{base}/scaling_max_freq")
    if not most or not allowed:
        return
    governor, driver = root.text(f"{base}/scaling_governor"), root.text(f"{base}/scaling_driver")
    said = f"up to {allowed / 1e6:.2f} of {most / 1e6:.2f} GHz, governor {governor or 'unknown'}"
    for folder in root.listed("sys/class/devfreq/*"):
        clock, highest = root.number(f"{folder}/cur_freq"), root.number(f"{folder}/max_freq")
        if clock and highest and folder.endswith(("gpu", "gv11b", "ga10b")):
            said += f"; GPU {clock / 1e6:.0f} of {highest / 1e6:.0f} MHz"
    # Under pstate drivers, "powersave" still rises to full speed under load.
    if governor == "powersave" and "pstate" not in driver:
        remedy = "echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("clocks", WARN, said, f"the processor stays at its lowest clock: {remedy}")
    elif allowed < 0.99 * most:
        yield Finding("clocks", WARN, said, "the clock is capped by the power mode or by hand")
    else:
        yield Finding("clocks", OK, said)


def _heat(root: Root) -> Iterator[Finding]:
    zones = []
    for folder in root.listed("sys/class/thermal/thermal_zone*"):
        reading = root.number(f"{folder}/temp")
        if reading is not None and -40_000 < reading < 200_000:  # a zone that sleeps answers with -256 degrees
            zones.append((reading / 1000, folder))
    if not zones:
        return
    hottest, zone = max(zones)
    said = f"{hottest:.0f} °C at most ({root.text(f'{zone}/type') or zone.rsplit('/', 1)[1]})"
    throttling = [
        root.text(f"{device}/type")
        for device in root.listed("sys/class/thermal/cooling_device*")
        if "throttle" in root.text(f"{device}/type") and (root.number(f"{device}/cur_state") or 0) > 0
    ]
    if throttling:
        yield Finding("heat", WARN, f"{said}, {', '.join(throttling)} active", "it runs slower until cooled")
        return
    for now, place in zones:
        for kind, degrees in _trips(root, place):
            if kind == "critical" and now >= degrees - _WARM_C:
                yield Finding("heat", FAIL, said, f"the machine turns itself off at {degrees:.0f} °C: cool it")
                return
            if kind in ("passive", "hot") and now >= degrees - _WARM_C:
                yield Finding("heat", WARN, said, f"it slows down from {degrees:.0f} °C on: cool it")
                return
    yield Finding("heat", OK, said)


def _trips(root: Root, zone: str) -> Iterator[tuple[str, float]]:
    """Trip points of a zone: the critical ones first."""
    found = []
    for file in root.listed(f"{zone}/trip_point_*_type"):
        degrees = root.number(file.removesuffix("_type") + "_temp")
        if degrees is not None and degrees > 0:
            found.append((root.text(file), degrees / 1000))
    yield from sorted(found)


def _group(root: Root) -> tuple[float, float]:
    """Limit of this process's control group, and what is left of it, in MB; the narrowest of its ancestors."""
    limit = room = math.inf
    for folder, cap, used in _groups(root):
        most, now = root.number(f"{folder}/{cap}"), root.number(f"{folder}/{used}")
        if most is None or most >= _UNLIMITED:
            continue
        limit = min(limit, most / _MB)
        # Pages of files that were read once are counted as used, and are given back when they are needed.
        stat = dict(line.split(" ", 1) for line in root.text(f"{folder}/memory.stat").splitlines() if " " in line)
        reclaimable = int(stat.get("inactive_file", stat.get("total_inactive_file", "0")))
        room = min(room, (most - max(0, (now or 0) - reclaimable)) / _MB)
    return limit, room


def _groups(root: Root) -> Iterator[tuple[str, str, str]]:
    for line in root.text("proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        parts = [part for part in path.split("/") if part and part != ".."]
        ancestors = ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
        if number == "0":
            for one in ancestors:
                yield f"sys/fs/cgroup/{one}".rstrip("/"), "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            for one in ancestors:
                folder = f"sys/fs/cgroup/memory/{one}".rstrip("/")
                yield folder, "memory.limit_in_bytes", "memory.usage_in_bytes"


def _cpu_quota(root: Root) -> float | None:
    """Cores that a control group allows; None without a limit."""
    found = []
    for folder in {folder for folder, _, _ in _groups(root)}:
        quota, _, period = root.text(f"{folder}/cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _flags(root: Root) -> frozenset[str]:
    for line in root.text("proc/cpuinfo").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _model(root: Root) -> str:
    for line in root.text("proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def _gib(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GiB"
