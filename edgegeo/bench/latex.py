"""Results as LaTeX tables: one a job, with booktabs, ready to be read by \\input."""

from collections.abc import Sequence

from edgegeo.bench.columns import Column, numbers_of, settings_of
from edgegeo.bench.definition import JOBS
from edgegeo.bench.front import METRIC_NAMES, front, metric_of
from edgegeo.bench.markdown import machine_sentence
from edgegeo.bench.rows import Row

LEFT_OUT = ("95 % interval", "p99 ms", "PSS MB", "cold start ms")
"""Columns that a page of a paper has no room for."""
_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "→": r"$\rightarrow$", "±": r"$\pm$", "°": r"\textdegree{}", "×": r"$\times$",
}  # fmt: skip


def render_latex(rows: Sequence[Row]) -> str:
    """A `table*` for each job; failed rows are left out, rows on the front are bold."""
    parts = ["% Needs \\usepackage{booktabs}. Bold: on the front of time per item against accuracy."]
    for job in JOBS:
        mine = [row for row in rows if row["job"] == job and "error" not in row]
        if mine:
            parts.append(_table(job, mine))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that TeX sets as it stands."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def _table(job: str, rows: Sequence[Row]) -> str:
    columns = [*settings_of(rows), *(column for column in numbers_of(rows) if column.title not in LEFT_OUT)]
    best = {id(row) for row in front(rows)}
    metrics = " / ".join(dict.fromkeys(METRIC_NAMES[metric_of(job, row["candidates"])] for row in rows))
    caption = f"{job}: {JOBS[job]}. Accuracy: {metrics}, 95 % bootstrap intervals. {machine_sentence(rows)}"
    name = job.replace("_", "-")
    lines = [
        r"\begin{table*}", r"  \centering\small", f"  \\caption{{{escape(caption)}}}", f"  \\label{{tab:bench-{name}}}",
        f"  \\begin{{tabular}}{{{''.join('l' if column.left else 'r' for column in columns)}}}", r"    \toprule",
        "    " + " & ".join(escape(column.title) for column in columns) + r" \\", r"    \midrule",
        *(f"    {_line(row, columns, id(row) in best)}" for row in rows),
        r"    \bottomrule", r"  \end{tabular}", r"\end{table*}",
    ]  # fmt: skip
    return "\n".join(lines)


def _line(row: Row, columns: Sequence[Column], bold: bool) -> str:
    texts = [escape(column.text(row)) for column in columns]
    if bold:
        texts[0] = rf"\textbf{{{texts[0]}}}"
    return " & ".join(texts) + r" \\"
