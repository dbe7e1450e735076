"""What an accuracy budget found, as a person reads it; the bundle's quantisation.html holds the rest."""

from typing import Any

from edgegeo.cli.output import say, table

SHOWN = 5


def print_quantisation(document: dict[str, Any]) -> None:
    """The curve, the worst matrices, and whether the budget is kept for certain."""
    curve = document["curve"]
    metrics = [change["metric"] for change in curve[0]["changes"]]
    jobs = list(dict.fromkeys(job for one in curve for job in one["latency_ms"]))
    rows = []
    for one in curve:
        drops = [_drop(change["drop_points"]) for change in one["changes"]]
        times = [f"{one['latency_ms'][job]['p50']:.2f} ms" if job in one["latency_ms"] else "-" for job in jobs]
        mark = " <- chosen" if one["chosen"] else ""
        rows.append((one["name"] + mark, one["kept"], f"{one['bytes'] / 2**20:.2f} MB", *drops, *times))
    places = curve[0]["places"]
    named = [f"points lost, {_name(metric)}" for metric in metrics]
    table((f"mix ({places:,} validation places)", "kept finer", "bundle", *named, *jobs), rows)
    say("")
    worst = [
        (one["group"], one["precision"], "-" if one["sqnr_db"] is None else f"{one['sqnr_db']:.1f} dB",
         f"{one['cosine']:.6f}", one["stored"])
        for one in document["sensitivity"][:SHOWN]
    ]  # fmt: skip
    if worst:
        table(("most sensitive matrices", "at", "SQNR alone", "cosine", "stored as"), worst)
        say("")
    confirmed = document["confirmed"]
    told = "; ".join(f"{_name(one['metric'])} {_drop(one['drop_points'])}" for one in confirmed["changes"])
    certain = "" if document["proven"] else ", which the 95 % interval does not prove yet"
    say(
        f"at most {document['max_drop_points']:g} points of {document['judged_by']} may be lost: confirmed on "
        f"{confirmed['places']:,} other places{certain} ({told})"
    )


def _name(metric: str) -> str:
    return metric.replace("_recall_at_", ", Recall@").replace("_", " ")


def _drop(drop: dict[str, float]) -> str:
    value, low, high = (round(drop[part], 1) + 0.0 for part in ("value", "low", "high"))  # no -0.0
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
