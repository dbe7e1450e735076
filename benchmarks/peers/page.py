"""The contest's table as Markdown."""

from typing import Any


def page(document: dict[str, Any], order: list[str], reference: str) -> str:
    """One row a contestant, one column a job; the best peer of each job and its distance; who did not run, and why."""
    jobs = [job for job in document["jobs"] if any(row["job"] == job for row in document["rows"])]
    rows = {(row["job"], row["contestant"]): row for row in document["rows"]}
    names = [name for name in order if any((job, name) in rows for job in jobs)]
    facts = {**document["machine"], **document["versions"], **document["settings"]}
    size = document["size"]
    command = "python benchmarks/peers/run.py" + ("" if size == "smolvlm-256m" else f" --size {size}")
    threads = document["settings"].get("threads", 2)
    command += "" if threads == 2 else f" --threads {threads}"
    lines = [
        f"# edgegeo and its peers: {size}", "",
        f"""The same weights and inputs, every contestant a process of its own, in turn A B C A B C. Milliseconds
(median), and times faster than {reference} (geometric mean of the ratios of neighbouring runs). Before it is timed
each must agree with our fp32: float32 within 1e-3 of the largest value, bf16 to a cosine of 0.99, int8 of 0.97, int4
of 0.8 (random weights have no structure for 4 bits to keep).""", "",
        ", ".join(f"{name} {value}" for name, value in facts.items()), "",
        f"`{command}` repeats it; search: `benchmarks/index_search.py`.", "",
        "| contestant | " + " | ".join(jobs) + " | load s | peak MB |", "|---|" + "---:|" * (len(jobs) + 2),
    ]  # fmt: skip
    reasons: dict[str, list[str]] = {}
    for name in names:
        cells = []
        for job in jobs:
            row = rows.get((job, name), {"reason": "not run"})
            cells.append(f"{row['median_ms']:.1f} ({row['times_faster']:.2f} x)" if "median_ms" in row else "-")
            if "reason" in row:
                reasons.setdefault(f"{name}: {row['reason']}", []).append(job)
        load = document["loads"].get(name, {})
        told = [f"{load[key]:.{digits}f}" if key in load else "-" for key, digits in (("load_s", 1), ("peak_mb", 0))]
        lines.append(f"| {name} | {' | '.join([*cells, *told])} |")
    lines += ["", "| job | what | best of ours | best peer | ours by best peer |", "|---|---|---|---|---:|"]
    for job in jobs:
        timed = [row for (one, _), row in rows.items() if one == job and "median_ms" in row]
        ours, theirs = (_best(timed, mine) for mine in (True, False))
        if ours and theirs:
            # Not of milliseconds: the two may be of different runs, each with its own reference.
            ratio = ours["times_faster"] / theirs["times_faster"]
            ends = [f"{row['contestant']} {row['median_ms']:.1f} ms" for row in (ours, theirs)]
            lines.append(f"| {job} | {document['jobs'][job]} | {' | '.join(ends)} | {ratio:.2f} x |")
    lines += ["", "Not timed:", ""]
    lines += [
        f"- {why} ({', '.join(where) if len(where) < len(jobs) else 'all jobs'})" for why, where in reasons.items()
    ]
    return "\n".join([*lines, ""])


def _best(rows: list[dict[str, Any]], mine: bool) -> dict[str, Any] | None:
    """The fastest of ours or of the others."""
    some = [row for row in rows if row["contestant"].startswith("edgegeo") == mine]
    return max(some, key=lambda row: float(row["times_faster"]), default=None)
