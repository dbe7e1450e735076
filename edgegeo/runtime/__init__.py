"""The lean runtime: pictures and words in, embeddings, hits and positions out. numpy, Pillow, tokenizers, onnxruntime.

>>> from edgegeo.runtime import Locator                                    # doctest: +SKIP
>>> locator = Locator.open("bundles/pocket-int8", "galleries/planet")      # doctest: +SKIP
>>> locator.locate("photo.jpg").position                                   # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgegeo.runtime.answer import parse_answer
    from edgegeo.runtime.embed import Embedder
    from edgegeo.runtime.gallery.gallery import Gallery, Hits
    from edgegeo.runtime.gallery.rows import Row, Skipped
    from edgegeo.runtime.generate import Generated, Generator
    from edgegeo.runtime.image import ImageLimits, open_image
    from edgegeo.runtime.locator import Locator
    from edgegeo.runtime.model import Model
    from edgegeo.runtime.outcome import Answer, Hit
    from edgegeo.runtime.pictures import ImageTokens, Picture, prepare_picture
    from edgegeo.runtime.rerank import Reranker
    from edgegeo.runtime.sampling import Decoding
    from edgegeo.runtime.second_look import Reranking
    from edgegeo.runtime.sessions import open_session
    from edgegeo.runtime.tokens import Tokenizer
    from edgegeo.runtime.verify import VerifyReport, verify_bundle

_HOMES = {
    "Answer": "outcome",
    "Decoding": "sampling",
    "Embedder": "embed",
    "Gallery": "gallery.gallery",
    "Generated": "generate",
    "Generator": "generate",
    "Hit": "outcome",
    "Hits": "gallery.gallery",
    "ImageLimits": "image",
    "ImageTokens": "pictures",
    "Locator": "locator",
    "Model": "model",
    "Picture": "pictures",
    "Reranker": "rerank",
    "Reranking": "second_look",
    "Row": "gallery.rows",
    "Skipped": "gallery.rows",
    "Tokenizer": "tokens",
    "VerifyReport": "verify",
    "open_image": "image",
    "open_session": "sessions",
    "parse_answer": "answer",
    "prepare_picture": "pictures",
    "verify_bundle": "verify",
}

__all__ = [
    "Answer",
    "Decoding",
    "Embedder",
    "Gallery",
    "Generated",
    "Generator",
    "Hit",
    "Hits",
    "ImageLimits",
    "ImageTokens",
    "Locator",
    "Model",
    "Picture",
    "Reranker",
    "Reranking",
    "Row",
    "Skipped",
    "Tokenizer",
    "VerifyReport",
    "open_image",
    "open_session",
    "parse_answer",
    "prepare_picture",
    "verify_bundle",
]


def __getattr__(name: str) -> Any:
    # Lazy: a program that only parses answers or opens pictures never loads onnxruntime.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"edgegeo.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edgegeo.runtime' has no attribute '{name}'")
