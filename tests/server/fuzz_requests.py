"""Hostile requests by the thousand, grown from the examples of the server's own OpenAPI document."""

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

JSON = "application/json"

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), -float("inf"),
    "", " ", "\0", "\n", "x", "x" * 60_000, "\ud800", "\udfff\ud800", "\u202e\u200b", "\U0001f600" * 50,
    "../../etc/passwd", "/etc/passwd", "C:\\x", "file:///etc/passwd", "http://169.254.169.254/latest", "{{7*7}}",
    "%00%n%s", "<script>alert(1)</script>", "' OR 1=1 --", "${x}", "data:,", "data:image/png;base64,",
    "data:image/png;base64,AA", "data:image/png;base64," + "A" * 10_000,
    "NaN", "1e400", "1,2,3", "0,0,nan", "91,181,-1", "1" * 5000,
    [], [[]], {}, [None], [{}], {"": {}}, {"type": "text"}, {"type": "image_url"}, {"type": "text", "text": {}},
    {"content": [{"content": []}]}, {"__proto__": {}}, [0] * 500, [{}] * 500, ["x"] * 500, [[1, 2, 3]], {"id": "../x"},
)  # fmt: skip
RAW = (
    b"", b"{", b"}", b"null", b"[]", b'""', b"0", b"-", b"NaN", b"Infinity", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}",
    b"{}{}", b"/* */ {}", b"{'a': 1}", b'{"input":"\xff"}', b'"' + b"\\u0000" * 50_000 + b'"',
    b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"[" * 900 + b"]" * 900,
    b'{"input": "a", "input": "b"}', b'{"text": "a", "text": "b"}', b'{"k": 1e999, "text": "a"}',
    b'{"text": "a", "k": ' + b"1" * 5000 + b"}", b"{" + b" " * 500_000 + b"}",
    b'{"input": [' + b"{}," * 200_000 + b"{}]}", b'{"documents": [' + b"[]," * 200_000 + b"[]]}",
    b'{"input": [' + b'"x",' * 15_000 + b'"x"]}', b'{"tiles": [' + b"{}," * 9_000 + b"{}]}",
    b'{"query": "x", "documents": [' + b"0," * 15_000 + b"0]}",
    b'{"messages": [' + b'{"role":"user","content":[]},' * 2_000 + b"{}]}",
)  # fmt: skip
KINDS = (
    JSON, JSON, JSON, "application/json; charset=utf-16", "text/plain", "application/x-www-form-urlencoded", "", "\t",
    "multipart/form-data", "multipart/form-data; boundary=", "application/vnd.x+json", "image/png", "application/xml",
)  # fmt: skip
HURTS = (b"", b"\0", b"\xff", b'"', b"{", b"}", b",", b"\\u", b"1e9")
ACCEPTED = ("*/*", "application/geo+json", "\t", "x/y;q=9")
DISPOSITIONS = ("form-data", "form-data", "attachment", "")
FILES = ("", "", '; filename="p.jpg"', '; filename="../../p\\"', "; filename*=utf-8''%ff%00", ";;;=;")
PART_HEADERS = ("", "", "image/png", "text/plain\r\ncontent-transfer-encoding: base64", "x\r\nx: " + "y" * 20_000)
ENDS = (b"\r\n", b"\r\n", b"", b"\n")
LAST = (b"--%s--\r\n", b"--%s--\r\n", b"--%s", b"")


@dataclass(frozen=True)
class Sent:
    """One request."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Door:
    """One operation of the document: where to knock and with what."""

    method: str
    path: str
    parameters: tuple[dict[str, Any], ...]
    examples: tuple[Any, ...]
    form: dict[str, Any] | None


def doors(document: dict[str, Any]) -> list[Door]:
    """Every operation, with the examples of its body."""
    found = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get(JSON, {}).get("schema", {})
            if "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
            form = content.get("multipart/form-data", {}).get("schema", {}).get("properties")
            parameters = tuple(operation.get("parameters", ()))
            found.append(Door(method.upper(), path, parameters, tuple(schema.get("examples", ())), form))
    return found


def requests(document: dict[str, Any], count: int, seed: int = 0) -> Iterator[Sent]:
    """So many requests, in turn to every operation."""
    rng = random.Random(seed)
    known = doors(document)
    for i in range(count):
        door = known[i % len(known)]
        ways = [_plain]
        if door.examples:
            ways = [_changed, _changed, _changed, _broken, _raw]
        if door.form:
            ways += [_form, _form]
        yield rng.choice(ways)(door, rng)


def _address(door: Door, rng: random.Random) -> str:
    path, query = door.path, []
    for parameter in door.parameters:
        value = rng.choice(("test-00001", "0", *(str(v) for v in VALUES if isinstance(v, (str, int, float)))))[:3000]
        value = quote(value.encode("utf-8", "replace"), safe=rng.choice(("", "/.")))
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", value)
        elif rng.random() < 0.3:
            query.append(f"{parameter['name']}={value}")
    return path + ("?" + "&".join(query * rng.choice((1, 1, 2))) if query else "")


def _plain(door: Door, rng: random.Random) -> Sent:
    return Sent(door.method, _address(door, rng), b"", {"accept": rng.choice(ACCEPTED)})


def _changed(door: Door, rng: random.Random) -> Sent:
    """An example with values of other types, missing, repeated, deeper, longer."""
    value = copy.deepcopy(rng.choice(door.examples))
    for _ in range(rng.choice((1, 1, 2, 5))):
        value = _mutated(value, rng)
    return Sent(door.method, _address(door, rng), json.dumps(value).encode(), {"content-type": JSON})


def _mutated(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(list(value))
        turn = rng.random()
        if turn < 0.1:
            del value[name]
        elif turn < 0.2:
            value[rng.choice(("x", "", "__class__", name + "s", "model", "k", "n", "stream"))] = copy.deepcopy(
                rng.choice(VALUES)
            )
        else:
            value[name] = _mutated(value[name], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        if rng.random() < 0.3:
            return value * rng.choice((0, 2, 30, 300))
        value[at] = _mutated(value[at], rng)
        return value
    if isinstance(value, str) and rng.random() < 0.4:
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice(("\0", "\ud800", "%", "=", "\u0301" * 300, "")) + value[at:]
    # A copy, since what is put in is changed in its turn.
    return copy.deepcopy(rng.choice((*VALUES, [value], {"content": [value]}, [[value]])))


def _broken(door: Door, rng: random.Random) -> Sent:
    """An example whose bytes are hurt."""
    data = bytearray(json.dumps(rng.choice(door.examples)).encode())
    for _ in range(rng.choice((1, 3, 20))):
        at = rng.randrange(len(data) + 1)
        data[at : at + rng.choice((0, 1, 1, 30))] = rng.choice(HURTS)
    return Sent(door.method, _address(door, rng), bytes(data), {"content-type": rng.choice(KINDS)})


def _raw(door: Door, rng: random.Random) -> Sent:
    return Sent(door.method, _address(door, rng), rng.choice(RAW), {"content-type": rng.choice(KINDS)})


def _form(door: Door, rng: random.Random) -> Sent:
    """A multipart form with the wrong fields, files, lines or ends."""
    assert door.form is not None
    boundary = rng.choice(("x", "x", "x", "-", "y" * 70, "y" * 3000, 'a"b', "ö"))
    lines = []
    names = [*door.form, *rng.choices(("", "x", "image", "file", "photo", "id", "k", "\0", "n" * 9000), k=2)]
    for name in rng.sample(names, rng.randrange(len(names))) * rng.choice((1, 1, 1, 2, 40)):
        value = rng.choice((*VALUES, "0.5", "5", "river"))
        said = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else str(value)[:5000].encode()
        head = f'content-disposition: {rng.choice(DISPOSITIONS)}; name="{name}"{rng.choice(FILES)}'
        more = rng.choice(PART_HEADERS)
        head += f"\r\ncontent-type: {more}" if more else ""
        lines.append(f"--{boundary}\r\n{head}\r\n\r\n".encode() + said + rng.choice(ENDS))
    body = b"".join(lines) + rng.choice(LAST).replace(b"%s", boundary.encode())
    kind = f"multipart/form-data; boundary={boundary}" + rng.choice(("", "", "; charset=utf-16", "; charset=nope"))
    return Sent(door.method, _address(door, rng), body, {"content-type": kind.encode().decode("latin-1")})
