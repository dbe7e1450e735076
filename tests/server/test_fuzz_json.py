"""Hostile JSON and forms to every operation of the document: no 5xx, nothing private, right afterwards."""

import http.client
import json
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from shutil import copytree
from urllib.parse import urlsplit

import pytest
from fuzz_requests import Sent, requests
from live import running
from test_fuzz_images import PRIVATE, peak_memory, untimed

from edgegeo.server.guard import ADMIN_HEADER

ADMIN = "an-administrators-key"
# Starlette leaves the file of a form's part that never ends to the garbage collector, which closes it at once.
UNENDED = "import warnings; warnings.filterwarnings('ignore', 'Unclosed file <tempfile.Spooled', ResourceWarning)\n"
MOST_MEMORY = 600 * 2**20
"""Bytes: the process with its model, and the values of one body of 8 MB, each as bytes and as Python's objects."""


def answered(address: str, sent: Iterable[Sent]) -> list[tuple[Sent, int, str, bytes]]:
    answers = []
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)) as line:
        for one in sent:
            line.request(one.method, one.path, one.body or None, {ADMIN_HEADER: ADMIN, **one.headers})
            answer = line.getresponse()
            answers.append((one, answer.status, answer.headers.get("content-type", ""), answer.read()))
    return answers


def check_server(bundle: Path, gallery: Path, log: Path, count: int) -> Counter[tuple[str, int]]:
    """Send so many; how often each operation gave each status."""
    known = Sent("POST", "/v1/embeddings", b'{"input": ["a river", "a field"]}', {"content-type": "application/json"})
    with running(bundle, gallery, log=log, before=UNENDED, admin_key=ADMIN, max_body_bytes=2**23) as (process, address):
        document = json.loads(answered(address, [Sent("GET", "/openapi.json")])[0][3])
        right = answered(address, [known])[0]
        answers = answered(address, requests(document, count))
        for one, status, kind, body in answers:
            shown = (one.method, one.path[:200], one.body[:300], status, body[:300])
            assert status < 500, shown
            assert not PRIVATE.search(body), shown
            if status >= 400:
                assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}, shown
            elif "json" in kind:
                json.loads(body, parse_constant=lambda name, shown=shown: pytest.fail(f"{name} in {shown}"))
        after = answered(address, [known])[0]
        assert (after[1], untimed(after[3])) == (right[1], untimed(right[3]))
        assert process.poll() is None
        assert peak_memory(process) < MOST_MEMORY
        print(f"{len(answers)} requests, peak {peak_memory(process) / 2**20:.0f} MB of {MOST_MEMORY / 2**20:.0f} MB")
    assert "Traceback" not in log.read_text()
    return Counter((one.method, status) for one, status, _, _ in answers)


@pytest.fixture
def gallery(planet_gallery: Path, tmp_path: Path) -> Path:
    """A copy: some of the requests change it."""
    return Path(copytree(planet_gallery, tmp_path / "gallery"))


def test_hundreds_of_hostile_requests(tiny_bundle: Path, gallery: Path, tmp_path: Path) -> None:
    counts = check_server(tiny_bundle, gallery, tmp_path / "log", 250)
    assert sum(counts.values()) == 250
    assert counts["POST", 422] > 20
    assert counts["POST", 400] > 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0])
def test_thousands_of_hostile_requests(tiny_bundle: Path, gallery: Path, tmp_path: Path, seed: int) -> None:
    counts = check_server(tiny_bundle, gallery, tmp_path / "log", 4_000)
    print(dict(sorted(counts.items())))
    assert counts["POST", 422] > 500
    assert counts["POST", 200] > 50
