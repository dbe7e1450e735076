"""The scripts under benchmarks/: a fast wrong answer is never timed, and the token budget is measured (in small)."""

import json
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_a_contest_checks_before_it_times(scripts: None, tmp_path: Path) -> None:
    from contest import REFERENCE, Contest, Job

    right, wrong = np.ones((1, 4)), np.array([[1.0, -1.0, 1.0, -1.0]])
    contest = Contest("test", {"threads": 1})
    contest.run(Job("same", {REFERENCE: lambda: right, "edgegeo int8": lambda: right * 1.01}, repeats=2))
    for bad in (wrong, np.ones((1, 3)), right * np.nan):
        with pytest.raises(SystemExit, match="disagrees"):
            contest.run(Job("other", {REFERENCE: lambda: right, "edgegeo int8": lambda b=bad: b}, repeats=2))
    with pytest.raises(SystemExit, match="differs"):
        contest.run(Job("other", {REFERENCE: lambda: right, "plain fp32": lambda: right * 1.01}, repeats=2))
    contest.write(tmp_path, "result")
    document = json.loads((tmp_path / "result.json").read_text())
    assert [row["job"] for row in document["rows"]] == ["same", "same"]
    assert document["versions"]["torch"]
    assert "| same |" in (tmp_path / "result.md").read_text()


def test_the_token_budget_at_true_size_in_small(scripts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import token_budget
    import true_size

    vision = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 128, "patch_size": 16}  # fmt: skip
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "eos_token_id": 2}  # fmt: skip
    monkeypatch.setattr(true_size, "VISION", vision)
    monkeypatch.setattr(true_size, "TEXT", {**true_size.TEXT, **text})
    monkeypatch.setattr(token_budget, "BUDGETS", ((64, 1), (128, 1), (64, 2)))
    monkeypatch.setattr(token_budget, "PHOTO", (160, 120))
    monkeypatch.setattr("sys.argv", ["token_budget.py", "--repeats", "1", "-o", str(tmp_path)])
    token_budget.main()
    rows = json.loads((tmp_path / f"{token_budget.STEM}.json").read_text())["rows"]
    assert [(row["tiles"], row["tokens"], row["positions"]) for row in rows] == [(1, 1, 4), (1, 4, 7), (5, 5, 18)]
    assert (tmp_path / f"{token_budget.STEM}.md").read_text().count("\n| ") == 4
