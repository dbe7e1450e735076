"""The setting to deploy: the cheapest one within limits that is as accurate as the best one within them."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgegeo.bench.front import score
from edgegeo.bench.rows import Row, describe, joules
from edgegeo.errors import InputError

PREFERRED = ("locate", "generate", "rerank", "search", "embed_image", "embed_text")
"""Which job decides where none is named: the one nearest to what is deployed."""


@dataclass(frozen=True)
class Wanted:
    """Limits. Memory in MB of 2**20 bytes: of the process, and on a GPU of the device, each."""

    max_latency_ms: float = math.inf
    """p90 of a call."""
    max_memory_mb: float = math.inf
    max_joules: float = math.inf
    """An item; a row whose energy was not measured does not pass."""
    min_accuracy: float = 0.0
    """Of the job's own metric, a share."""
    min_throughput: float = 0.0
    """Items a second."""

    def faults(self, row: Row) -> list[str]:
        """Which limits a row breaks, in words."""
        found = score(row)
        if found is None:
            return ["its accuracy was not measured"]
        memory = max(row["memory_mb"]["peak"], row["memory_mb"].get("device", 0.0))
        energy = joules(row)
        told = [
            (row["latency_ms"]["p90"] > self.max_latency_ms, f"p90 {row['latency_ms']['p90']:.1f} ms"),
            (memory > self.max_memory_mb, f"{memory:.0f} MB"),
            (math.isfinite(self.max_joules) and (energy is None or energy > self.max_joules),
             "energy not measured" if energy is None else f"{energy:.3g} J"),
            (found["value"] < self.min_accuracy, f"accuracy {100 * found['value']:.1f} %"),
            (row["throughput_per_s"] < self.min_throughput, f"{row['throughput_per_s']:.1f} items/s"),
        ]  # fmt: skip
        return [text for broken, text in told if broken]


@dataclass(frozen=True)
class Choice:
    """What to deploy."""

    row: Row
    most_accurate: Row
    """Of all rows within the limits; the choice is as accurate as far as the places can tell."""
    within: int
    """Rows within the limits."""
    measured: int
    """Rows of the job."""


def choose(rows: Sequence[Row], wanted: Wanted, job: str | None = None) -> Choice:
    """Of the rows within the limits whose accuracy does not differ from the best one's (paired interval where the
    results allow it), the one with the least p90; with `min_throughput` the one with the most items a second.

    job: which job's rows; None takes the first of PREFERRED that was measured. InputError where nothing qualifies,
    naming what comes nearest.
    """
    from edgegeo.bench.changes import accuracy_change

    good = [row for row in rows if "error" not in row]
    name = job or next((name for name in PREFERRED if any(row["job"] == name for row in good)), None)
    mine = [row for row in good if row["job"] == name]
    if not mine:
        known = ", ".join(dict.fromkeys(row["job"] for row in good)) or "nothing that succeeded"
        raise InputError(f"the results hold no row of the job {name}; they hold {known}")
    left = [row for row in mine if not wanted.faults(row)]
    if not left:
        raise InputError(f"no setting of {name} keeps all limits; nearest: {_nearest(mine, wanted)}")
    top = max(left, key=lambda row: ((score(row) or {})["value"], -row["latency_ms"]["p90"]))

    def equal(row: Row) -> bool:
        change = accuracy_change(top, row)
        return change is not None and change["high"] >= 0

    def cost(row: Row) -> tuple[float, float]:
        fast = -row["throughput_per_s"] if wanted.min_throughput else row["latency_ms"]["p90"]
        return fast, row["memory_mb"]["peak"]

    return Choice(min((row for row in left if equal(row)), key=cost), top, len(left), len(mine))


def recipe_toml(recipe: Mapping[str, Any], remark: str = "") -> str:
    """A recipe's plain data as the TOML that `edgegeo export --recipe` reads; what is None is left out."""
    lines = [f"# {line}" for line in remark.splitlines()]
    tables = {name: value for name, value in recipe.items() if isinstance(value, Mapping)}
    lines += [f"{_key(n)} = {_value(v)}" for n, v in recipe.items() if v is not None and n not in tables]
    for name, table in tables.items():
        given = {key: value for key, value in table.items() if value is not None}
        if given:
            lines += ["", f"[{_key(name)}]", *(f"{_key(key)} = {_value(value)}" for key, value in given.items())]
    return "\n".join(lines) + "\n"


def commands(row: Row, recipe_file: str) -> list[str]:
    """What makes the bundle, and what runs it so."""
    source = f" {_word(row['checkpoint'])}" if row.get("checkpoint") else ""
    method = f" --method {row['asked_method']}" if row.get("asked_method") else ""
    made = row.get("recipe") is not None
    bundle = "best" if made else row["bundle"]
    verbs = {
        "embed_text": "embed --text 'a village by a lake'", "embed_image": "embed photo.jpg",
        "search": "index search --text 'a village by a lake'",
    }  # fmt: skip
    runs = f"edgegeo {verbs.get(row['job'], 'locate photo.jpg')} --bundle {_word(bundle)}"
    runs += f" --threads {row['threads']}" if row["threads"] != "auto" else ""
    runs += f" --provider {row['provider']}" if row["provider"] != "cpu" else ""
    runs += f" --dims {row['dims']}" if row["dims"] and row["job"] != "search" else ""
    runs += f" --rerank {row['rerank']}" if row["rerank"] else ""
    runs += f" --candidates {row['candidates']}" if row["candidates"] > 1 else ""
    first = f"edgegeo export{source} --recipe {_word(recipe_file)}{method} -o best"
    mode = [f"sudo nvpmodel -m {row['power_mode']}"] if row.get("power_mode") is not None else []
    return [*([first] if made else []), *mode, runs]


def _nearest(rows: Sequence[Row], wanted: Wanted) -> str:
    near = min(rows, key=lambda row: (len(wanted.faults(row)), row["latency_ms"]["p90"]))
    return f"{describe(near)} ({', '.join(wanted.faults(near))})"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)


def _word(text: str) -> str:
    import shlex

    return shlex.quote(text)
