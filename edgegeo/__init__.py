"""edgegeo: multimodal LLMs that know where things are, shrunk and run in the field.

>>> from edgegeo import Locator                                             # doctest: +SKIP
>>> locator = Locator.open("pocket-int8", gallery="planet-gallery")         # doctest: +SKIP
>>> locator.locate("photo.jpg").position                                    # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgegeo.runtime import Answer, Embedder, Gallery, Locator

__version__ = "0.1.0"
__all__ = ["Answer", "Embedder", "Gallery", "Locator", "__version__"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `edgegeo --help` and the ground floor don't load onnxruntime.
    if name in __all__:
        import edgegeo.runtime

        return getattr(edgegeo.runtime, name)
    raise AttributeError(f"module 'edgegeo' has no attribute '{name}'")
