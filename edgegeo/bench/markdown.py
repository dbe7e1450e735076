"""Results as a Markdown document: one table a job, and where the time of each goes."""

from collections.abc import Sequence

from edgegeo.bench import budget
from edgegeo.bench.columns import Column, numbers_of, settings_of, stages_of
from edgegeo.bench.definition import JOBS
from edgegeo.bench.front import METRIC_NAMES, front, metric_of
from edgegeo.bench.rows import Row, joules


def render_markdown(rows: Sequence[Row], about: str = "") -> str:
    """The token budget where several were measured, then two tables a job; a star marks the rows on its front."""
    lines = ["# edgegeo bench", ""]
    lines += [about, ""] if about else []
    lines += [machine_sentence(rows), "", method_sentence(rows), ""]
    if budget.compares_budgets(rows):
        lines += ["## Token budget", "", budget.budget_caption(rows), ""]
        lines += ["| " + " | ".join(budget.HEADERS) + " |", "|---|---|" + "---:|" * (len(budget.HEADERS) - 2)]
        lines += ["| " + " | ".join(map(_plain, line)) + " |" for line in budget.budget_table(rows)]
        lines += [""]
    for job in [job for job in JOBS if any(row["job"] == job for row in rows)]:
        mine = [row for row in rows if row["job"] == job]
        metrics = " / ".join(dict.fromkeys(METRIC_NAMES[metric_of(job, row["candidates"])] for row in mine))
        lines += [f"## {job}", "", f"{JOBS[job]}. Accuracy: {metrics}.", ""]
        lines += _table(mine, settings_of(mine), numbers_of(mine))
        good = [row for row in mine if "error" not in row]
        if stages := stages_of(good):
            lines += ["", "Milliseconds of a call by stage:", ""]
            lines += _table(good, settings_of(mine), stages)
        lines += [""]
    lines += ["\\* on the front of time per item against accuracy.", ""]
    return "\n".join(lines)


def _table(rows: Sequence[Row], settings: Sequence[Column], numbers: Sequence[Column]) -> list[str]:
    columns = [*settings, *numbers]
    best = {id(row) for row in front(rows)}
    lines = ["| " + " | ".join(column.title for column in columns) + " |"]
    lines.append("|" + "".join("---|" if column.left else "---:|" for column in columns))
    for row in rows:
        if "error" in row:
            said = [f"failed: {row['error']}", *([""] * (len(numbers) - 1))]
        else:
            said = [column.text(row) for column in numbers]
        texts = [_plain(text) for text in [*(column.text(row) for column in settings), *said]]
        texts[0] += "\\*" if id(row) in best else ""
        lines.append("| " + " | ".join(texts) + " |")
    return lines


def machine_sentence(rows: Sequence[Row]) -> str:
    """What the numbers were measured on and with."""
    if not rows:
        return "Nothing measured."
    facts, tools = rows[-1]["machine"], rows[-1]["versions"]
    flags = f" ({' '.join(facts['flags'])})" if facts.get("flags") else ""
    words = [f"{facts['cpu']}{flags}, {facts['cores']} cores"]
    words += [f"{facts['memory_gb']:g} GB"] if "memory_gb" in facts else []
    words += [", ".join(facts["gpus"])] if facts.get("gpus") else []
    words += [f"governor {facts['governor']}"] if facts.get("governor") else []
    if mode := facts.get("power_mode"):
        words.append(f"power mode {mode['number']} {mode['name']}".rstrip())
    words += ["virtual machine"] if facts.get("virtual") else []
    words += [f"in {facts['container']}"] if facts.get("container") else []
    words += [facts["system"], f"Python {facts['python']}"]
    names = ", ".join(f"{name} {number}" for name, number in tools.items() if name != "code")
    commit = f"commit {facts['commit']}, " if facts.get("commit") else ""
    return f"{', '.join(words)}; {names}; {commit}sources {tools['code']}, {_days(rows)}."


def method_sentence(rows: Sequence[Row]) -> str:
    """How it was measured, and what was not."""
    good = [row for row in rows if "error" not in row]
    if not good:
        return "No cell succeeded."
    rounds = sorted({row["rounds"] for row in good})
    repeats = sorted({row["repeats"] for row in good})
    counted = f"{repeats[0]} to {repeats[-1]}" if len(repeats) > 1 else str(repeats[0])
    if any(joules(row) is not None for row in good):
        energy = "energy: whole meters, idle power included"
    else:
        energy = f"energy {good[0]['energy'].get('why', 'not measured')}"
    return (
        f"Cells in random order; each in {'-'.join(map(str, rounds))} processes of its own after {good[0]['warmup']} "
        f"warm-up runs, {counted} counted runs in all; intervals of the median hold every "
        f"process's own 95 % interval. Batch 1 is SingleStream (its p90 counts), more is Offline (items/s count), with "
        f"JPEG decoding in the time; these are not MLPerf results. PSS: memory with shared pages shared out; {energy}."
    )


def _days(rows: Sequence[Row]) -> str:
    days = sorted({row["when"][:10] for row in rows})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
