"""edgegeo serve: the HTTP server and its web page."""

from pathlib import Path
from typing import Annotated

from edgegeo.cli.flags import BundleFlag, GalleryFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag
from edgegeo.cli.output import emit_json, note


def command(
    bundle: BundleFlag = None,
    gallery: GalleryFlag = None,
    host: Annotated[
        str, flag("--host", help="Address to listen on; others than loopback need an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, flag("--port", help="Port to listen on; 0 lets the system choose.")] = 8080,
    api_key_file: Annotated[
        Path | None,
        flag("--api-key-file", help="File whose first line is the API key.", show_default="EDGEGEO_API_KEY, if set"),
    ] = None,
    queue_size: Annotated[int, flag("--queue-size", help="Requests in hand at once; one more is answered 429.")] = 32,
    deadline: Annotated[float, flag("--deadline", help="Seconds until a request is answered 504.")] = 30.0,
    max_body_mb: Annotated[float, flag("--max-body-mb", help="A larger request is answered 413.")] = 32.0,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Serve embeddings, search, re-ranking and positions over HTTP, with a web page at /."""
    from edgegeo.home import default_gallery, find_bundle
    from edgegeo.server import ServerSettings, read_api_key, serve

    place = find_bundle(bundle)
    if gallery is None and (usual := default_gallery(place)).is_dir():
        gallery = usual
    if gallery is None:
        note("no gallery: search is off and positions come from generation alone; make one with: edgegeo index build")
    settings = ServerSettings(
        bundle=place,
        gallery=gallery,
        host=host,
        port=port,
        api_key=read_api_key(api_key_file),
        provider=provider,
        threads=threads,
        queue_size=queue_size,
        deadline_s=deadline,
        max_body_bytes=int(max_body_mb * 2**20),
    )
    serve(settings, announce=lambda line: emit_json({"serving": line}) if as_json else print(line, flush=True))
