"""edgegeo serve: the HTTP server and its web page."""

from pathlib import Path
from typing import Annotated

from edgegeo.cli.flags import JsonFlag, ProviderFlag, ThreadsFlag, flag
from edgegeo.cli.output import emit_json, note

BundlesFlag = Annotated[
    list[Path] | None,
    flag(
        "--bundle",
        help="Bundle folder, or the name of one under the data home; may be repeated, the first is the default.",
        show_default="pocket-int8",
    ),
]
GalleryFlag = Annotated[
    str | None,
    flag(
        "--gallery",
        help="Gallery of the first bundle: its folder, or postgresql://HOST/DATABASE/GALLERY.",
        show_default="the planet gallery of each bundle",
    ),
]
HostFlag = Annotated[str, flag("--host", help="Address to listen on; others than loopback need an API key.")]
PortFlag = Annotated[int, flag("--port", help="Port to listen on; 0 lets the system choose.", min=0, max=65535)]
KeyFlag = Annotated[
    Path | None,
    flag("--api-key-file", help="File whose first line is the API key.", show_default="EDGEGEO_API_KEY, if set"),
]
AdminKeyFlag = Annotated[
    Path | None,
    flag(
        "--admin-key-file",
        help="File whose first line is the key that changes the gallery and reloads.",
        show_default="EDGEGEO_ADMIN_KEY, if set",
    ),
]
QueueFlag = Annotated[int, flag("--queue-size", help="Requests in hand at once; one more is answered 429.", min=1)]
DeadlineFlag = Annotated[
    float, flag("--deadline", help="Seconds until a request is answered 504.", min=0.1, max=86_400)
]
BodyFlag = Annotated[float, flag("--max-body-mb", help="A larger request is answered 413.", min=0.001, max=4096)]
InputsFlag = Annotated[int, flag("--max-inputs", help="Texts, pictures or documents in one request.", min=1)]
MaxBatchFlag = Annotated[
    int, flag("--max-batch", help="Inputs of all requests together in one call of the model.", min=1)
]
WaitFlag = Annotated[
    float,
    flag(
        "--batch-wait-ms",
        help="How long an idle model waits for a batch to fill; 0 takes what has queued.",
        min=0,
        max=10_000,
    ),
]
MemoryFlag = Annotated[
    int | None, flag("--memory-budget-mb", help="Memory of all bundles together.", min=1, show_default="no limit")
]
CacheFlag = Annotated[int, flag("--cache-mb", help="Memory for embeddings of inputs that come again; 0 is off.", min=0)]
ClientFlag = Annotated[
    int | None, flag("--per-client", help="Requests in hand of one client address.", min=1, show_default="no limit")
]
HostsFlag = Annotated[
    str,
    flag("--allowed-hosts", help="Further names accepted in the Host header, with commas; * accepts any."),
]
LogFlag = Annotated[str, flag("--log-format", help="text, or json for one object a line.")]
DrainFlag = Annotated[
    float, flag("--drain", help="Seconds the requests in hand have to end after SIGTERM.", min=0, max=86_400)
]
HeartbeatFlag = Annotated[
    float,
    flag("--heartbeat", help="Seconds between trial answers that feed the watchdog; 0 is off.", min=0, max=86_400),
]


def command(
    bundle: BundlesFlag = None,
    gallery: GalleryFlag = None,
    host: HostFlag = "127.0.0.1",
    port: PortFlag = 8080,
    api_key_file: KeyFlag = None,
    admin_key_file: AdminKeyFlag = None,
    queue_size: QueueFlag = 64,
    deadline: DeadlineFlag = 30.0,
    max_body_mb: BodyFlag = 32.0,
    max_inputs: InputsFlag = 256,
    max_batch: MaxBatchFlag = 16,
    batch_wait_ms: WaitFlag = 0.0,
    memory_budget_mb: MemoryFlag = None,
    cache_mb: CacheFlag = 64,
    per_client: ClientFlag = None,
    allowed_hosts: HostsFlag = "",
    log_format: LogFlag = "text",
    drain: DrainFlag = 25.0,
    heartbeat: HeartbeatFlag = 30.0,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Serve embeddings, search, re-ranking and positions over HTTP, with a web page at /."""
    from edgegeo.home import built_gallery, find_bundle
    from edgegeo.runtime.postgres.address import is_address
    from edgegeo.server import ServerSettings, read_admin_key, read_api_key, serve

    places = tuple(find_bundle(named) for named in bundle) if bundle else (find_bundle(None),)
    place = (gallery if is_address(gallery) else Path(gallery)) if gallery else built_gallery(places[0])
    settings = ServerSettings(
        bundles=places, gallery=place, host=host, port=port, api_key=read_api_key(api_key_file),
        admin_key=read_admin_key(admin_key_file), provider=provider, threads=threads, queue_size=queue_size,
        deadline_s=deadline, max_body_bytes=int(max_body_mb * 2**20), max_inputs=max_inputs, max_batch=max_batch,
        batch_wait_ms=batch_wait_ms, memory_budget_mb=memory_budget_mb, cache_mb=cache_mb, per_client=per_client,
        allowed_hosts=tuple(name for word in allowed_hosts.split(",") if (name := word.strip())),
        log_format=log_format, drain_s=drain, heartbeat_s=heartbeat,
    )  # fmt: skip

    def announce(line: str) -> None:
        emit_json({"serving": line}) if as_json else print(line, flush=True)
        if place is None:
            note("no gallery: search is off, positions come from generation alone; make one with: edgegeo index build")

    serve(settings, announce)
