"""What Prometheus sees: counted right, in its format, with labels that no client chooses."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine
from edgegeo.server.metrics import STAGES, Drop, Kind, Loaded, Metrics, Reason
from edgegeo.server.settings import ServerSettings

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def app(engine: Engine, settings: ServerSettings) -> Iterator[TestClient]:
    """A server whose counters start at nothing."""
    with TestClient(create_app(engine, settings), raise_server_exceptions=False) as client:
        yield client


def scraped(client: TestClient) -> Series:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


def test_labels_come_from_fixed_sets(app: TestClient, photo: bytes) -> None:
    odd = "zebra-7"
    app.request("BREW", f"/{odd}")
    app.get(f"/v1/gallery/{odd}/thumbnail")
    app.post("/v1/embeddings", json={"input": odd, "model": odd})
    app.post(f"/v1/{odd}", json={})
    app.get("/v1/models", headers={"x-request-id": odd, "host": f"{odd}.example"})
    app.post("/v1/locate", files={"image": (odd, photo)}, data={"rerank": "2"})
    app.post("/v1/locate", json={"text": odd})
    assert odd not in app.get("/metrics").text
    paths = list(app.get("/openapi.json").json()["paths"])
    routes = {*paths, *(path.replace("{tile}", "{tile:path}") for path in paths)}
    allowed = {
        "status": {str(code) for code in range(200, 600)},
        "method": {"GET", "POST", "HEAD", "DELETE", "other"},
        "route": routes | {"/", "/openapi.json", "other"},
        "reason": set(get_args(Reason)),
        "kind": set(get_args(Kind)),
        "why": set(get_args(Drop)),
        # A stage that is not known would be lost in "other".
        "stage": STAGES,
        "result": {"hit", "miss", "done", "failed"},
        "bundle": {"tiny"},
    }
    for (name, labels), _ in scraped(app).items():
        for label, shown in labels:
            if name.startswith("edgegeo") and label in allowed:
                assert shown in allowed[label], (name, label, shown)


def test_what_a_request_leaves_behind(app: TestClient) -> None:
    before = scraped(app)
    for _ in range(2):
        assert app.post("/v1/embeddings", json={"input": ["a bridge", "a dam", "a pier"]}).status_code == 200
    after = scraped(app)
    asked = {"route": "/v1/embeddings", "method": "POST", "status": "200"}
    assert value(after, "edgegeo_request_seconds_count", **asked) == 2
    assert value(after, "edgegeo_cache_inputs_total", result="miss") == 3
    assert value(after, "edgegeo_cache_inputs_total", result="hit") == 3
    assert value(after, "edgegeo_cache_bytes") > value(before, "edgegeo_cache_bytes")
    assert value(after, "edgegeo_batch_size_sum", kind="embed_text") == 3
    assert value(after, "edgegeo_model_seconds_count", kind="embed_text") >= 1
    waits = [value(series, "edgegeo_queue_wait_seconds_count") for series in (before, after)]
    assert waits[1] - waits[0] == 3
    assert value(after, "edgegeo_requests_in_hand") == value(after, "edgegeo_queue_size") == 0
    assert value(after, "edgegeo_ready") == 1
    assert value(after, "edgegeo_draining") == 0
    assert value(after, "edgegeo_bundles_loaded") == 1
    assert value(after, "edgegeo_gallery_tiles", bundle="tiny") == 12
    assert value(after, "edgegeo_bundle_memory_bytes", bundle="tiny") > 0
    assert value(after, "process_resident_memory_bytes") > 2**20
    assert value(after, "process_open_fds") > 3
    assert not any(name == "edgegeo_heartbeat_age_seconds" for name, _ in after)


def test_why_jobs_were_not_run(engine: Engine, settings: ServerSettings) -> None:
    changed = replace(settings, deadline_s=0.3)
    with (
        TestClient(create_app(engine, changed), raise_server_exceptions=False) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        scheduler = client.app.state.context.fleet.scheduler  # type: ignore[attr-defined]
        hold = threading.Event()
        holding = pool.submit(client.portal.call, scheduler.run, "locate", hold.wait, 20)  # type: ignore[union-attr]
        while not scheduler.busy_s:
            time.sleep(0.01)
        late = pool.submit(client.post, "/v1/search", json={"text": "late"})
        while not scheduler.waiting:
            time.sleep(0.01)
        assert value(scraped(client), "edgegeo_queue_size") == 1
        assert late.result().status_code == 504
        series = scraped(client)
        assert value(series, "edgegeo_jobs_dropped_total", why="expired") == 1
        assert value(series, "edgegeo_jobs_dropped_total", why="cancelled") == 0
        assert value(series, "edgegeo_refused_total", reason="deadline") == 1
        hold.set()
        holding.result()


def test_series_exist_before_the_first_event_and_go_with_their_bundle() -> None:
    metrics = Metrics(lambda: 0)
    loaded = [Loaded("one", "int8", "cpu", "f1", 5, 7), Loaded("two", "fp32", "cpu", "f2")]
    metrics.watch_bundles(lambda: loaded)
    text = metrics.text().decode()
    for reason in get_args(Reason):
        assert f'edgegeo_refused_total{{reason="{reason}"}} 0.0' in text
    assert 'edgegeo_bundle_memory_bytes{bundle="one"} 5.0' in text
    assert 'edgegeo_bundle_memory_bytes{bundle="two"}' not in text
    loaded.pop()
    assert "two" not in metrics.text().decode()
    metrics.stages({"vision": 12.0, "a stage nobody knows": 3.0})
    assert 'edgegeo_stage_seconds_sum{stage="other"} 0.003' in metrics.text().decode()


def test_the_age_of_the_heartbeat() -> None:
    metrics = Metrics(lambda: 0)
    metrics.beat(False)
    assert "\nedgegeo_heartbeat_age_seconds " not in metrics.text().decode()
    metrics.beat(True)
    first = age(metrics)
    time.sleep(0.02)
    assert 0 <= first < age(metrics) < 5
    metrics.beat(False)
    assert age(metrics) > first
    assert 'edgegeo_heartbeats_total{result="failed"} 2.0' in metrics.text().decode()


def age(metrics: Metrics) -> float:
    (line,) = [x for x in metrics.text().decode().splitlines() if x.startswith("edgegeo_heartbeat_age_seconds ")]
    return float(line.split()[1])


def test_a_sick_source_is_one_error_not_a_wrong_number() -> None:
    """A collector that fails must not be shown as zero; the scrape fails, and Prometheus says so."""
    metrics = Metrics(lambda: 0)

    def gone() -> Any:
        raise RuntimeError("gone")

    metrics.watch_queue(gone)
    with pytest.raises(RuntimeError):
        metrics.text()
