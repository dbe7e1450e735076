"""benchmarks/roofline.py: the page tells where time is left, and when its own ceilings can't be right."""

from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"


def document(*shares: float, **more: Any) -> dict[str, Any]:
    plain = {
        "least_ms": 10.0,
        "median_ms": 11.0,
        "bound": "memory",
        "operators_ms": {"MatMul": 3.0, "Sum": 1.0},
        **more,
    }
    rows = [{"stage": f"stage {i}", "limit_ms": 10 * share, "share": share, **plain} for i, share in enumerate(shares)]
    ceilings = [{"threads": 1, "read_gbs": 20.0, "fp32_gflops": 100.0, "int8_gops": 400.0}]
    return {"bundle": "small", "machine": {}, "threads": 1, "repeats": 1, "load average": 0.0, "ceilings": ceilings,
            "rows": rows}  # fmt: skip


def test_the_page_says_where_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from roofline import page

    text = page(document(0.9, 0.4))
    assert "| stage 0 | 10.00 | 9.00 | memory | 90% | MatMul 75%, Sum 25% |" in text
    assert "more than twice its limit: stage 1 (2.5 x its limit)." in text
    assert "measure again" not in text
    assert "before ms" not in text
    assert "No stage takes more than twice" in page(document(0.9))
    assert "measure again" in page(document(1.2))
    assert "| 15.00 | 1.50 |" in page(document(0.9, before_ms=15.0, times_faster=1.5))


def test_the_profile_adds_up_every_node_once(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators of a real session; the fastest run of each node, so more runs never add to it."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import numpy as np
    from roofline import Stage, profile

    from edgegeo.bundle import open_bundle
    from edgegeo.field.work import Work
    from edgegeo.runtime.trunk import Head

    bundle = open_bundle(tiny_bundle)
    spec = bundle.decoder

    def logits(session: Any) -> Any:
        head, states = Head(session, 1, spec.hidden, spec.vocab), np.ones((1, 1, spec.hidden), np.float32)
        return lambda: head.run(states)

    stage = Stage("head", "head", Work({}, 0.0, 0.0, 0.0), logits)
    found = profile(stage, bundle.component("head"), 1, 5, tmp_path)
    assert found
    assert all(ms >= 0 for ms in found.values())
    assert not list(tmp_path.glob("profile*"))
