"""benchmarks/peers in small: nobody is timed who disagrees, and real contestants in processes of their own agree."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.syspath_prepend(str(SCRIPTS / "peers"))
    import run

    return run


def test_disagreement_has_a_reason(run: Any) -> None:
    exact, small = (run.Contestant("one", "peer", "fp32", floor=floor) for floor in (1.0, 0.97))
    ours = np.random.default_rng(0).normal(size=(3, 8))
    assert run.agreement(exact, ours + 1e-6, ours, None)[1] == ""
    assert "differs" in run.agreement(exact, ours * 1.01, ours, None)[1]
    assert run.agreement(small, ours * 1.01, ours, None)[1] == ""
    assert "below 0.97" in run.agreement(small, np.roll(ours, 1, axis=0), ours, None)[1]
    assert "output" in run.agreement(small, ours[:, :4], ours, None)[1]
    assert "output" in run.agreement(small, ours * np.nan, ours, None)[1]
    tokens = np.array([4, 5, 6])
    assert run.agreement(small, tokens * 1.0, ours, tokens) == (1.0, "")
    assert run.agreement(small, tokens[::-1] * 1.0, ours, tokens)[1] == "it wrote other tokens"


def test_the_page_names_the_best_peer_and_who_is_missing(run: Any) -> None:
    from page import page

    def row(name: str, ms: float) -> dict[str, Any]:
        return {"job": "vision", "contestant": name, "median_ms": ms, "times_faster": 100 / ms}

    rows = [row(run.REFERENCE, 100.0), row("edgegeo int8", 20.0), row("OpenVINO int8", 25.0),
            {"job": "vision", "contestant": "llama.cpp Q8_0", "reason": "no converter"}]  # fmt: skip
    document = {"size": "small", "machine": {}, "versions": {}, "settings": {}, "jobs": run.JOBS, "rows": rows,
                "loads": {"edgegeo int8": {"load_s": 0.5, "peak_mb": 400}}}  # fmt: skip
    text = page(document, [one.label for one in run.CONTESTANTS], run.REFERENCE)
    assert "| edgegeo int8 | 20.0 (5.00 x) | 0.5 | 400 |" in text
    assert "| edgegeo int8 20.0 ms | OpenVINO int8 25.0 ms | 1.25 x |" in text
    assert "- llama.cpp Q8_0: no converter (all jobs)" in text


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_contestants_in_small(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job by transformers, edgegeo and the plain export, each in a process of its own; one is not installed."""
    pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    import true_families

    whole = true_families.smolvlm

    def small(ids: dict[str, int]) -> Any:
        config = whole(ids)
        sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2}
        config.vision_config.update({**sizes, "num_hidden_layers": 1, "image_size": 64})
        config.text_config.update({**sizes, "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 32})
        return config

    family = true_families.FAMILIES["smolvlm-256m"]
    made = type(family)(**{**vars(family), "config": small, "preprocessor": {
        **family.preprocessor, "max_image_size": {"longest_edge": 64}, "size": {"longest_edge": 256}}})  # fmt: skip
    monkeypatch.setitem(true_families.FAMILIES, "smolvlm-256m", made)
    folder = tmp_path / "smolvlm-256m"
    run.prepare_inputs("smolvlm-256m", folder)
    chosen = [one for one in run.CONTESTANTS if one.module in ("peer_torch", "peer_edgegeo", "peer_plain", "peer_genai")
              and one.precision != "compile" and "int4" not in one.label]  # fmt: skip
    chosen.append(run.Contestant("absent", "peer_genai", "int4", "genai"))
    problems = run.prepare(chosen, folder, tmp_path, 1)
    assert list(problems) == ["absent"], problems
    run.write_answers(folder, "smolvlm-256m")
    options = Namespace(threads=1, repeats=1, scratch=tmp_path)
    found = run.contest(chosen, problems, list(run.JOBS), folder, tmp_path, options)
    timed = {(row["job"], row["contestant"]) for row in found["rows"] if "median_ms" in row}
    for job in run.JOBS:
        for name in (run.REFERENCE, run.OURS, "edgegeo int8", "plain ONNX fp32", "plain ONNX int8"):
            assert (job, name) in timed, [row for row in found["rows"] if row["job"] == job and "reason" in row]
    assert ("answer-24", "edgegeo int8, grammar") in timed
    assert ("answer-24", "edgegeo int8, grammar and drafts") in timed
    assert ("answer-96", "edgegeo int8, grammar") not in timed
    run.write(tmp_path, "smolvlm-256m", found, options)
    assert len(json.loads((tmp_path / "peers_smolvlm-256m_1_threads.json").read_text())["rows"]) == len(found["rows"])
