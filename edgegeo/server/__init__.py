"""The HTTP server over the runtime: OpenAI-style embeddings, Jina-style re-ranking, search, locate, a web page.

>>> from edgegeo.server import ServerSettings, serve                        # doctest: +SKIP
>>> serve(ServerSettings(bundles=(Path("pocket-int8"),), gallery=Path("tiles")))  # doctest: +SKIP
"""

from edgegeo.server.listen import serve
from edgegeo.server.settings import ServerSettings, read_admin_key, read_api_key

__all__ = ["ServerSettings", "read_admin_key", "read_api_key", "serve"]
