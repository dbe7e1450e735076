"""The server under load: throughput and latency by clients, a long run of good and bad input, and sudden ends.

    python benchmarks/serve_load.py                      all three, minutes; needs a bundle and a gallery of the planet
    python benchmarks/serve_load.py --only load --bundle pocket-int8 --requests 800

Every answer is compared with the one that the same request gets alone. The callers run on the same cores as the server,
so throughputs are lower bounds. Writes benchmarks/results/serve_load.json and .md.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from callers import Call, Line, Told, closed_loop, embedding_calls, open_loop, post, vector

from edgegeo.measure import machine, percentile

RESULTS = Path(__file__).parent / "results"
CLIENTS = (1, 8, 64)
ALONE = 0.999
"""Least cosine with the answer that the request gets alone: int8 takes its ranges from what is computed together."""
PAGE = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def server(options: argparse.Namespace, log: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process of the command line, on a port of its own choice unless `more` names one."""
    words = [sys.executable, "-m", "edgegeo", "serve", "--port", "0", "--cache-mb", "0", "--log-format", "json", *more]
    words += ["--bundle", options.bundle] if options.bundle else []
    with log.open("a") as said:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if " at http://" not in line:
            sys.exit(f"the server did not start: {line}{log.read_text()[-500:]}")
        yield process, int(line.split(" at ")[1].split()[0].rstrip("/").rsplit(":", 1)[1])
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def judged(told: Sequence[Told], alone: Sequence[np.ndarray]) -> dict[str, Any]:
    """Statuses, wrong answers and latency of the answered."""
    worst, mixed = 1.0, 0
    matrix = np.stack(list(alone))
    for one in told:
        if one.status == 200:
            likeness = matrix @ vector(one.body)
            worst = min(worst, float(likeness[one.call]))
            mixed += bool(likeness[one.call] < ALONE or likeness.argmax() != one.call)
    took = [one.seconds for one in told if one.status == 200]
    return {
        "answered": len(took), "statuses": dict(Counter(str(one.status) for one in told)), "wrong": mixed,
        "least_cosine_with_alone": worst, "p50_ms": percentile(took, 50) * 1e3, "p99_ms": percentile(took, 99) * 1e3,
    }  # fmt: skip


def load(options: argparse.Namespace, log: Path) -> dict[str, Any]:
    """Closed loop at 1, 8 and 64 clients, in turn and several times; then open loop around what that reached."""
    out: dict[str, Any] = {}
    for scenario, texts in (("pictures", False), ("pictures and texts", True)):
        calls = embedding_calls(105, texts)
        with server(options, log) as (_, port):
            told, _ = asyncio.run(closed_loop(port, calls, 1, len(calls)))
            alone = [vector(one.body) for one in sorted(told, key=lambda one: one.call)]
            rows: list[dict[str, Any]] = []
            for repeat in range(options.repeats):
                for clients in CLIENTS:
                    told, spent = asyncio.run(closed_loop(port, calls, clients, options.requests))
                    rows.append(
                        {"clients": clients, "repeat": repeat, "per_second": len(told) / spent, **judged(told, alone)}
                    )
            best = max(median(rows, clients, "per_second") for clients in CLIENTS)
            for share in (0.5, 0.8, 2.0):
                told, spent = asyncio.run(open_loop(port, calls, share * best, options.requests))
                found = judged(told, alone)
                rows.append({"offered_per_second": share * best, "share_of_best": share,
                             "per_second": found["answered"] / spent, **found})  # fmt: skip
        out[scenario] = rows
    return out


def median(rows: Sequence[dict[str, Any]], clients: int, key: str) -> float:
    """Of the repeats of one number of clients."""
    return float(np.median([row[key] for row in rows if row.get("clients") == clients]))


def mixture() -> list[Call]:
    """Good and bad requests, each with the statuses a right server may give."""
    good = embedding_calls(30, True)
    picture = json.loads(good[0].data.split(b"\r\n\r\n", 1)[1])["input"][0]["image_url"]["url"]
    cut = picture[: len(picture) // 2 // 4 * 4]
    bomb = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA//8AAP//CAYAAAD/////"
    bad = [
        post("/v1/embeddings", b"{", "broken JSON", (400, 422)),
        post("/v1/embeddings", {"input": []}, "nothing", (422,)),
        post(
            "/v1/embeddings", {"input": [{"type": "image_url", "image_url": {"url": cut}}]}, "cut picture", (200, 422)
        ),
        post("/v1/embeddings", {"input": [{"type": "image_url", "image_url": {"url": bomb}}]}, "bomb", (413, 415, 422)),
        post("/v1/embeddings", {"input": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}, "URL", (422,)),
        post("/v1/nothing", {}, "no such route", (404,)),
        post("/v1/search", {"text": "a lake", "k": -1}, "impossible k", (422,)),
    ]
    more = [
        post("/v1/search", {"text": "a village by a lake", "k": 5}, "search"),
        post("/v1/locate", {"image": picture, "k": 3}, "locate"),
        post("/v1/rerank", {"query": "a lake", "documents": ["a lake", "a road"]}, "rerank"),
        post("/v1/chat/completions", {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "Where?"}]}]}, "chat"),
    ]  # fmt: skip
    return [*good, *bad, *more]


def soak(options: argparse.Namespace, log: Path) -> dict[str, Any]:
    """Thousands of requests; resident memory and open descriptors are read all the while."""
    calls = mixture()
    order = np.random.default_rng(0).permutation(len(calls) * 40) % len(calls)
    with server(options, log) as (process, port):
        samples: list[tuple[int, float, int]] = []

        def sample(done: int) -> None:
            if done % 100 == 0:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                samples.append((done, pages * PAGE / 2**20, len(os.listdir(f"/proc/{process.pid}/fd"))))

        told, spent = asyncio.run(closed_loop(port, [calls[i] for i in order], 8, options.soak, sample))
    wrong = Counter(
        f"{calls[order[one.call]].name}: {one.status}"
        for one in told
        if one.status != 429 and one.status not in calls[order[one.call]].statuses
    )
    late = np.array(samples[len(samples) // 2 :])  # the allocator fills its arenas before
    slope, at = np.polyfit(late[:, 0], late[:, 1], 1)
    noise = float(np.std(late[:, 1] - (slope * late[:, 0] + at)))
    return {
        "requests": len(told), "per_second": len(told) / spent, "unexpected": dict(wrong),
        "statuses": dict(Counter(str(one.status) for one in told)), "memory_mb": [late[0, 1], late[-1, 1]],
        "memory_slope_mb_per_1000": 1000 * slope, "memory_noise_mb": noise,
        "descriptors": [int(late[0, 2]), int(late[-1, 2])], "tracebacks": log.read_text().count("Traceback"),
    }  # fmt: skip


async def interrupted(process: subprocess.Popen[str], port: int, calls: Sequence[Call], number: int) -> Counter[str]:
    """Eight clients ask until the server is gone; a signal reaches it meanwhile. What became of their requests."""
    found: Counter[str] = Counter()

    async def client(first: int) -> None:
        line = Line(port)
        index = first
        while True:
            try:
                status, _ = await line.ask(calls[index % len(calls)].data)
            except ConnectionRefusedError:
                return  # nothing listens any more: it was never accepted
            except (ConnectionError, OSError):
                found["lost"] += 1
                return
            found[str(status)] += 1
            index += 1

    async def stop() -> None:
        await asyncio.sleep(2.0)
        process.send_signal(number)

    await asyncio.gather(*(client(7 * i) for i in range(8)), stop())
    return found


def ends(options: argparse.Namespace, log: Path) -> dict[str, Any]:
    """kill -9 loses what is in flight and nothing else; SIGTERM loses nothing; both start again at once."""
    calls, out = embedding_calls(30, True), {}
    for name, number in (("SIGTERM", signal.SIGTERM), ("SIGKILL", signal.SIGKILL)):
        with server(options, log) as (process, port):
            found = asyncio.run(interrupted(process, port, calls, number))
            code = process.wait(60)
        begun = time.perf_counter()
        with server(options, log, "--port", str(port)) as (_, again):
            told, _ = asyncio.run(closed_loop(again, calls, 1, len(calls)))
            ready = time.perf_counter() - begun
        out[name] = {"requests": dict(found), "exit": code, "answered_after": sum(t.status == 200 for t in told),
                     "asked_after": len(told), "seconds_to_restart_and_answer": ready}  # fmt: skip
    return out


def page(found: dict[str, Any]) -> str:
    """Markdown."""
    facts = found["machine"]
    lines = ["# The server under load", "", f"`python benchmarks/serve_load.py`, {facts['cpu']}, "
             f"{facts['cores']} cores shared by server and callers, embedding cache off. Each answer was compared with "
             "the one its request gets alone.", ""]  # fmt: skip
    for scenario, rows in found.get("load", {}).items():
        lines += [f"## {scenario.capitalize()}", "", "| | requests a second | p50 | p99 | turned away (429) | wrong |",
                  "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
        for clients in CLIENTS:
            of = [row for row in rows if row.get("clients") == clients]
            away, wrong = (sum(row["statuses"].get("429", 0) for row in of), sum(row["wrong"] for row in of))
            p50, p99, rate = (median(rows, clients, key) for key in ("p50_ms", "p99_ms", "per_second"))
            lines.append(f"| {clients} clients | {rate:.0f} | {p50:.0f} ms | {p99:.0f} ms | {away} | {wrong} |")
        for row in (row for row in rows if "share_of_best" in row):
            away = row["statuses"].get("429", 0)
            lines.append(f"| offered {row['offered_per_second']:.0f} a second | {row['per_second']:.0f} | "
                         f"{row['p50_ms']:.0f} ms | {row['p99_ms']:.0f} ms | {away} | {row['wrong']} |")  # fmt: skip
        one, eight = median(rows, 1, "per_second"), median(rows, 8, "per_second")
        worst = min(row["least_cosine_with_alone"] for row in rows)
        lines += ["", f"Eight clients: {eight / one:.2f} x the throughput of one. Least cosine with the answer alone: "
                  f"{worst:.5f}.", ""]  # fmt: skip
    if soaked := found.get("soak"):
        (low, high), (first, last) = soaked["memory_mb"], soaked["descriptors"]
        slope, noise = soaked["memory_slope_mb_per_1000"], soaked["memory_noise_mb"]
        lines += ["## A long run", "", f"{soaked['requests']:,} requests, good and bad mixed, 8 clients: "
                  f"{soaked['per_second']:.0f} a second; unexpected answers: {soaked['unexpected'] or 'none'}; "
                  f"tracebacks in the log: {soaked['tracebacks']}. Resident memory {low:.1f} MB half way, "
                  f"{high:.1f} MB at the end ({slope:+.2f} MB per 1,000 requests, noise {noise:.1f} MB); open "
                  f"descriptors {first} and {last}.", ""]  # fmt: skip
    if ended := found.get("ends"):
        lines += ["## Sudden ends", "", "| signal under load of 8 clients | answered | lost | exit | after a restart |",
                  "|---|---:|---:|---:|---|"]  # fmt: skip
        for name, row in ended.items():
            answered = sum(count for status, count in row["requests"].items() if status != "lost")
            lines.append(f"| {name} | {answered} | {row['requests'].get('lost', 0)} | {row['exit']} | "
                         f"{row['answered_after']} of {row['asked_after']} right |")  # fmt: skip
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="instead of pocket-int8")
    parser.add_argument("--only", choices=("load", "soak", "ends"))
    parser.add_argument("--requests", type=int, default=420, help="of each cell")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--soak", type=int, default=20_000)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    file = options.output / "serve_load.json"
    found: dict[str, Any] = json.loads(file.read_text()) if options.only and file.is_file() else {}
    found["machine"] = machine()
    with tempfile.TemporaryDirectory() as scratch:
        for name, part in (("load", load), ("soak", soak), ("ends", ends)):
            if options.only in (None, name):
                found[name] = part(options, Path(scratch) / f"{name}.log")
                print(json.dumps(found[name], indent=1)[:2000], flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n")
    (options.output / "serve_load.md").write_text(page(found))


if __name__ == "__main__":
    main()
