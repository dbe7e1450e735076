"""Thousands of hostile pictures against a live server: no 5xx, nothing private, bounded memory, right afterwards."""

import base64
import http.client
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fuzz_pictures import pictures
from live import running

from edgegeo.server.inputs import MOST_DECODED
from edgegeo.server.limits import BODIES

MOST_BODY = 8 * 2**20
MOST_MEMORY = 300 * 2**20 + MOST_DECODED + 3 * BODIES * MOST_BODY
"""Bytes: the process with its model, opened pictures, and bodies, each as bytes, as text and as the picture in it."""

PRIVATE = re.compile(rb'Traceback|File "|site-packages|\.py\b|0x[0-9a-f]{6}|/(?:tmp|home|root|srv)/|PIL\b|object at')
CLIENTS = 4


def form(data: bytes, kind: str) -> tuple[str, bytes, str]:
    head = f'--x\r\ncontent-disposition: form-data; name="image"; filename="../p"\r\ncontent-type: {kind}\r\n\r\n'
    return "/v1/locate", head.encode() + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def request(way: int, data: bytes) -> tuple[str, bytes, str]:
    """A picture to one of the places that take one, under one of the names that a client may give it."""
    kind = ("image/jpeg", "image/png", "image/webp", "image/svg+xml", "image/jpeg")[way % 5]
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    part = {"type": "image_url", "image_url": {"url": url}}
    bodies = {
        "/v1/embeddings": {"input": ["a river", part]},
        "/v1/rerank": {"query": part, "documents": [part, "test-00001"]},
        "/v1/search": {"image": url, "k": 2},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1},
    }
    if way % 5 == 4:
        return form(data, kind)
    path = list(bodies)[way % 5]
    return path, json.dumps(bodies[path]).encode(), "application/json"


def sent(address: str, cases: Iterator[tuple[int, tuple[str, bytes]]]) -> list[tuple[str, int, bytes]]:
    """What the server answers to each case, over one connection as long as it holds."""
    answers = []
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)) as connection:
        for way, (name, data) in cases:
            path, body, kind = request(way, data)
            connection.request("POST", path, body, {"content-type": kind})
            answer = connection.getresponse()
            answers.append((f"{name} to {path}", answer.status, answer.read()))
    return answers


def peak_memory(process: subprocess.Popen[str]) -> int:
    """Most bytes that the process has had resident so far, as the kernel counts them."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def check_server(bundle: Path, gallery: Path, photo: bytes, log: Path, whole: bool) -> Counter[int]:
    """Send them all; how often each status came."""
    with running(bundle, gallery, log=log, max_body_bytes=MOST_BODY, deadline_s=60.0) as (process, address):
        right = sent(address, iter([(way, ("photo", photo)) for way in (0, 1, 2)]))
        cases = enumerate(pictures(whole))
        with ThreadPoolExecutor(CLIENTS) as pool:
            turns = [[] for _ in range(CLIENTS)]
            for turn, case in zip(cycle(turns), cases):
                turn.append(case)
            answers = [answer for found in pool.map(lambda turn: sent(address, iter(turn)), turns) for answer in found]
        for name, status, body in answers:
            assert status < 500, (name, status, body[:300])
            assert not PRIVATE.search(body), (name, body[:300])
            assert status == 200 or set(json.loads(body)["error"]) == {"message", "type", "param", "code"}, name
        after = sent(address, iter([(way, ("photo", photo)) for way in (0, 1, 2)]))
        assert [(s, untimed(b)) for _, s, b in after] == [(s, untimed(b)) for _, s, b in right]
        assert process.poll() is None
        assert peak_memory(process) < MOST_MEMORY
        print(f"{len(answers)} pictures, peak {peak_memory(process) / 2**20:.0f} MB of {MOST_MEMORY / 2**20:.0f} MB")
    assert "Traceback" not in log.read_text()
    return Counter(status for _, status, _ in answers)


def untimed(body: bytes) -> object:
    value = json.loads(body)
    return {name: value[name] for name in value if name not in ("timings_ms", "id", "created")}


def test_hundreds_of_hostile_pictures(tiny_bundle: Path, planet_gallery: Path, photo: bytes, tmp_path: Path) -> None:
    counts = check_server(tiny_bundle, planet_gallery, photo, tmp_path / "log", whole=False)
    assert sum(counts.values()) >= 300
    assert min(counts[200], counts[415], counts[422]) > 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_hostile_pictures(tiny_bundle: Path, planet_gallery: Path, photo: bytes, tmp_path: Path) -> None:
    counts = check_server(tiny_bundle, planet_gallery, photo, tmp_path / "log", whole=True)
    print(dict(sorted(counts.items())))
    assert sum(counts.values()) >= 5_000
    assert min(counts[200], counts[415], counts[422]) > 300
