"""A contest: the same job by several contestants, checked for agreement first, then timed in turn."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.bench.cells import versions
from edgegeo.measure import machine, summarize, time_in_turn

REFERENCE = "transformers eager fp32"
FLOORS = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.97, "int4": 0.8}
"""Lowest cosine to the reference at which a contestant is timed at all: a fast wrong answer wins nothing.

Random weights have no structure for 4 bits to keep: at true size int4 comes to 0.90, trained weights to more."""

EXACT = 1e-3
"""Largest difference to the reference at which a float32 contestant is timed."""


@dataclass(frozen=True)
class Job:
    """One job and who does it. Every contestant returns an array that can be compared with the reference's."""

    name: str
    contestants: dict[str, Callable[[], Any]]
    repeats: int


@dataclass
class Contest:
    """Jobs measured so far, and everything needed to repeat them."""

    title: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, job: Job) -> None:
        """Check, then time; prints one line a contestant."""
        outputs = {name: np.asarray(work(), np.float64) for name, work in job.contestants.items()}
        agreement = {name: _cosine(out, outputs[REFERENCE]) for name, out in outputs.items()}
        for name, cosine in agreement.items():
            floor = next((limit for precision, limit in FLOORS.items() if name.endswith(precision)), 0.9999)
            if not cosine >= floor:
                raise SystemExit(f"{job.name}: {name} disagrees with transformers (cosine {cosine:.4f} < {floor})")
            far = float(np.max(np.abs(outputs[name] - outputs[REFERENCE])))
            if name.endswith("fp32") and not far <= EXACT:
                raise SystemExit(f"{job.name}: {name} differs from transformers by {far:.1e} > {EXACT}")
        timings = time_in_turn(job.contestants, job.repeats)
        reference = summarize(timings[REFERENCE]).p50_ms
        for name, seconds in timings.items():
            latency = summarize(seconds)
            row = {"job": job.name, "contestant": name, "agreement": agreement[name], **asdict(latency)}
            row["times_faster"] = reference / latency.p50_ms
            self.rows.append(row)
            print(f"{job.name:32} {name:28} {latency.p50_ms:10.2f} ms  {row['times_faster']:6.2f} x", flush=True)

    def write(self, folder: Path, stem: str) -> None:
        """`stem`.json with everything and `stem`.md with the table."""
        tools = {**versions(), **{name: version(name) for name in ("torch", "transformers")}}
        document = {
            "title": self.title,
            "date": date.today().isoformat(),
            "machine": machine(),
            "versions": tools,
            "settings": self.settings,
            "rows": self.rows,
        }
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"json": json.dumps(document, indent=1) + "\n", "md": self._markdown(document)}
        for suffix, text in texts.items():
            draft = folder / f".{stem}.{suffix}.part"
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, folder / f"{stem}.{suffix}")
        print(f"wrote {folder / stem}.json and .md")

    def _markdown(self, document: dict[str, Any]) -> str:
        names = list(dict.fromkeys(row["contestant"] for row in self.rows))
        lines = [f"# {self.title}", ""]
        lines += [
            f"Median ms (times faster than {REFERENCE}). Contestants in turn A B C A B C, 2 warm-up runs not counted, "
            "outputs checked against transformers before timing.",
            "",
            ", ".join(f"{key} {value}" for key, value in {**document["machine"], **document["versions"]}.items()),
            "",
            ", ".join(f"{key} {value}" for key, value in self.settings.items()),
            "",
            "| job | " + " | ".join(names) + " |",
            "|---|" + "---:|" * len(names),
        ]
        for job in dict.fromkeys(row["job"] for row in self.rows):
            found = {row["contestant"]: row for row in self.rows if row["job"] == job}
            cells = [
                f"{found[n]['p50_ms']:.2f} ({found[n]['times_faster']:.2f} x)" if n in found else "-" for n in names
            ]
            lines.append(f"| {job} | " + " | ".join(cells) + " |")
        lines += ["", f"Lowest cosine to {REFERENCE}: " + "; ".join(f"{n} {self._worst(n):.4f}" for n in names), ""]
        return "\n".join(lines)

    def _worst(self, contestant: str) -> float:
        return min(row["agreement"] for row in self.rows if row["contestant"] == contestant)


def _cosine(one: Any, two: Any) -> float:
    """Lowest cosine between matching vectors (the last axis); 0 for different shapes."""
    if one.shape != two.shape:
        return 0.0
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
    return float(np.min((one * two).sum(-1) / np.maximum(norms, 1e-12)))
