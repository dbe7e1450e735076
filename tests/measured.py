"""Lines and rows as a sweep writes them, without measuring."""

from typing import Any

from edgegeo.bench.rows import merge

MACHINE = {
    "cpu": "Test CPU",
    "cores": 2,
    "machine": "x86_64",
    "memory_gb": 8.0,
    "system": "Linux 6",
    "python": "3.11.7",
}


def line(label: str = "int8", job: str = "generate", ms: float = 10.0, number: int = 0, **more: Any) -> dict[str, Any]:
    """One round: eleven samples around `ms`, half a percent apart."""
    axes = {"batch": 1, "threads": "auto", "provider": "cpu", "dims": 0, "rerank": 0, "candidates": 1}
    facts = {
        "key": f"{label} {job} {sorted(more.items(), key=str)} {ms}", "round": number, "when": "2026-01-02T03:04:05",
        "label": label, "precision": label.split(" ")[0], "method": "lora", "job": job, **axes, "power_mode": None,
        "places": 100, "warmup": 2, "bundle": f"pocket-{label}", "fingerprint": "f" * 64, "recipe": None,
        "checkpoint": None, "asked_method": None, "size_bytes": 2**20, "machine": MACHINE, "accuracy": {},
        "versions": {"edgegeo": "0.1.0", "code": "abc", "onnxruntime": "1.31.1"},
        "picture": {"width": 64, "height": 64, "tiles": 1, "tokens": 16, "positions": 19},
    }  # fmt: skip
    numbers = {
        "samples_ms": [ms * (1 + 0.005 * ((3 * i) % 11 - 5)) for i in range(11)], "stopped": "narrow", "load_ms": 100.0,
        "cold_start_ms": 300.0, "memory_mb": {"first_result": 70.0, "peak": 80.0, "proportional": 50.0},
        "energy": {"why": "not measured: no RAPL"}, "stages_ms": {"vision": 0.6 * ms, "trunk": 0.4 * ms},
        "temperature_c": None, "load_average": 0.1,
    }  # fmt: skip
    return {**facts, **numbers, **more}


def share(value: float, metric: str = "gps_within_750_km", half: float = 0.03, **more: Any) -> dict[str, Any]:
    """An accuracy card of one metric."""
    return {metric: {"value": value, "low": value - half, "high": value + half, "places": 100, **more}}


def row(*words: Any, **more: Any) -> dict[str, Any]:
    """A row of one round."""
    return merge([line(*words, **more)])
