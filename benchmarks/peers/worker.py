"""One contestant in a process of its own: it loads, and then runs jobs as it is told by lines of JSON.

    python worker.py MODULE PRECISION FOLDER THREADS [prepare]

MODULE is a file beside this one that holds a class `Peer`. With `prepare` it only converts the checkpoint under FOLDER,
so that no conversion counts as loading or memory. Its own words go to stderr; stdout speaks the protocol:

    {"run": JOB, "into": FILE}   ->  {}                  the job's output as FILE (npy)
    {"time": JOB}                ->  {"seconds": ...}    the job once
    {"memory": true}             ->  {"peak_mb": ...}    largest resident memory so far

A job that a peer can't do is answered by {"refused": REASON}. Only numpy and the peer's own packages are needed.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


class Refused(Exception):
    """What a peer can't do, and why; the table shows the words."""


def main() -> None:
    module, precision, folder, threads = sys.argv[1:5]
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout
    sys.modules["worker"] = sys.modules["__main__"]  # a peer's Refused is this one
    kind = importlib.import_module(module).Peer
    if sys.argv[5:] == ["prepare"]:
        kind.prepare(Path(folder), precision)
        return
    start = time.perf_counter()
    try:
        peer = kind(Path(folder), precision, int(threads))
    except Refused as reason:
        _say(told, {"refused": str(reason)})
        return
    _say(told, {"load_s": time.perf_counter() - start})
    inputs: dict[str, dict[str, Any]] = {}
    for line in sys.stdin:
        try:
            _say(told, answer(peer, Path(folder), json.loads(line), inputs))
        except Refused as reason:
            _say(told, {"refused": str(reason)})
        except Exception as fault:  # a peer's own fault is a row of the table, not the end of the contest
            _say(told, {"refused": f"{type(fault).__name__}: {' '.join(str(fault).split())[:160]}"})


def answer(peer: Any, folder: Path, asked: dict[str, Any], inputs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Do what one line asks; jobs lie as npz files under FOLDER/jobs, the peer's method in the array `method`."""
    if "memory" in asked:
        return {"peak_mb": _peak_mb()}
    job = asked.get("run") or asked["time"]
    if job not in inputs:
        with np.load(folder / "jobs" / f"{job}.npz") as stored:
            inputs[job] = {name: stored[name] for name in stored.files}
    fed = dict(inputs[job])
    method = getattr(peer, str(fed.pop("method")), None)
    if method is None:
        raise Refused(peer.MISSING)
    start = time.perf_counter()
    out = method(**fed)
    seconds = time.perf_counter() - start
    if "run" in asked:
        np.save(asked["into"], np.asarray(out, np.float32))
        return {}
    return {"seconds": seconds}


def _say(stream: Any, words: dict[str, Any]) -> None:
    stream.write(json.dumps(words) + "\n")
    stream.flush()


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
