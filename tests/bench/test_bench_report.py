"""Reports: every format from the same rows, and nothing that came from outside left as it is."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from measured import line, row, share
from PIL import Image

from edgegeo.bench.columns import with_changes
from edgegeo.bench.latex import escape, render_latex
from edgegeo.bench.ledger import read_lines
from edgegeo.bench.markdown import render_markdown
from edgegeo.bench.page import render_page
from edgegeo.bench.report import FORMATS, write_reports
from edgegeo.bench.spreadsheet import render_csv
from edgegeo.errors import InputError

EVIL = '</script><script>alert(1)</script> | & "x" \\cmd{a}_%$#'
ROWS: list[dict[str, Any]] = [
    row("fp32", ms=20.0, accuracy=share(0.64)), row("int8", accuracy=share(0.65)),
    row("int8", ms=60.0, batch=8, accuracy=share(0.65)), row("int4", error=EVIL), row("int8 slq", "embed_text"),
]  # fmt: skip


def test_all_formats_are_written_whole(tmp_path: Path) -> None:
    texts = [kind for kind in FORMATS if kind != "png"]
    files = write_reports(ROWS, tmp_path / "new", texts, about="Why & what")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == sorted(f"results.{kind}" for kind in texts)
    assert "Why & what" in files["md"].read_text()
    assert "Why &amp; what" in files["html"].read_text()


def test_a_picture_of_one_job_and_of_nothing() -> None:
    pytest.importorskip("matplotlib")
    from edgegeo.bench.figure import render_png

    picture = Image.open(io.BytesIO(render_png(ROWS, dots_per_inch=60)))
    assert picture.size == (2 * 204, 162)  # time and memory; no row has an energy
    one = Image.open(io.BytesIO(render_png(ROWS, ("memory",), dots_per_inch=60)))
    assert one.size == (204, 162)
    both = [*ROWS, row("int8", "embed_text", accuracy=share(0.4, "text_to_tile_recall_at_1"))]
    assert Image.open(io.BytesIO(render_png(both, ("latency",), dots_per_inch=60))).size == (2 * 204, 162)
    with pytest.raises(InputError, match="no row tells energy"):
        render_png(ROWS, ("energy",))
    drawn = {colour for _, colour in picture.convert("RGB").getcolors(2**16) or []}
    assert {(0, 114, 178), (0, 158, 115)} <= drawn  # fp32 and int8
    with pytest.raises(InputError, match="nothing to draw"):
        render_png([row()])


def test_markdown_has_a_line_for_every_row_and_as_many_cells_in_each() -> None:
    text = render_markdown(with_changes(ROWS))
    table = text.split("## generate")[1].split("Milliseconds")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert "| int8\\* | 8 |" in text  # on the front: the least time per item
    assert "| fp32 | 1 |" in text
    assert "failed: </script>" in text
    assert "energy not measured: no RAPL" in text
    assert text.index("## embed_text") < text.index("## generate")


def test_the_change_against_fp32_stands_beside_the_share() -> None:
    told = with_changes(ROWS)
    assert "against_fp32" not in told[0]
    assert told[1]["against_fp32"]["value"] == pytest.approx(0.01)
    assert "against_fp32" not in told[2]  # fp32 was not measured at batch 8
    assert "+1.0 [" in render_markdown(told)


def test_energy_and_device_memory_have_columns_where_they_were_measured() -> None:
    told = {"joules_per_item": 0.25, "watts": 9.0, "idle_watts": 4.0, "meters": {"RAPL package-0": 0.25}}
    memory = {"peak": 80.0, "proportional": 50.0, "device": 640.0}
    text = render_markdown([row(energy=told, memory_mb=memory), row("int8")])
    assert "| J/item |" in text
    assert "| 0.2500 |" in text
    assert "| 640 |" in text
    assert "J/item" not in render_markdown(ROWS)


def test_csv_reads_back() -> None:
    lines = list(csv.DictReader(io.StringIO(render_csv(ROWS))))
    assert [one["label"] for one in lines] == [one["label"] for one in ROWS]
    assert float(lines[1]["latency_ms.p50"]) == pytest.approx(10.0)
    assert float(lines[1]["accuracy.gps_within_750_km.value"]) == 0.65
    assert lines[3]["error"] == EVIL
    assert lines[1]["machine.cpu"] == "Test CPU"
    [harmless] = csv.DictReader(io.StringIO(render_csv([row("=1+1")])))
    assert harmless["label"] == "'=1+1"


def test_latex_is_escaped_and_even() -> None:
    assert escape("50 % of a_b & {c} \\ ^~#$") == (
        r"50 \% of a\_b \& \{c\} \textbackslash{} \textasciicircum{}\textasciitilde{}\#\$"
    )
    text = render_latex(with_changes(ROWS))
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    assert r"\label{tab:bench-embed-text}" in text
    assert r"\textbf{int8} & 8" in text
    assert "failed" not in text
    table = text.split(r"\label{tab:bench-generate}")[1]
    columns = len(table.split(r"\begin{tabular}{")[1].split("}")[0])
    assert {line.count(" & ") for line in table.splitlines() if line.endswith(r"\\")} == {columns - 1}
    assert text.count("{") == text.count("}")


def test_the_page_holds_itself_together() -> None:
    page = render_page(with_changes([*ROWS, row(EVIL, accuracy=share(0.5))]))
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 2
    data = json.loads(page.split('id="rows">')[1].split("</script>")[0])
    names = [one["name"] for one in data["rows"]]
    assert names == ["fp32 batch 1", "int8 batch 1", "int8 batch 8", "int8 slq batch 1", f"{EVIL} batch 1"]
    assert data["rows"][3]["accuracy"] is None
    assert '<option value="energy" disabled>' in page
    assert "script-src 'sha256-" in page


def test_results_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results at"):
        read_lines(tmp_path)
    with pytest.raises(InputError, match=r"edgegeo bench -o \S*mine$"):
        read_lines(tmp_path / "mine")
    (tmp_path / "results.jsonl").write_text('{"key": "old row of another version"}\nnonsense\n')
    with pytest.raises(InputError, match="holds no results of this version"):
        read_lines(tmp_path)
    (tmp_path / "results.jsonl").write_text(json.dumps(line()) + "\n" + '{"key": "torn')
    assert len(read_lines(tmp_path)) == len(read_lines(tmp_path / "results.jsonl")) == 1
