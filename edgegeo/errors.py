"""Every error a user can meet, in one tree.

    EdgegeoError
    ├── InputError          a picture, text, coordinate or option that can't be used
    │   └── ImageError      not an image, too large, or of an unusable shape
    ├── CheckpointError     a model folder that is missing, incomplete or of an unknown architecture
    ├── BundleError         a bundle that is missing, damaged, or of an unknown version
    ├── GalleryError        a gallery that is missing, damaged, or made by another bundle
    │   └── GalleryBusyError  a gallery that another process is writing to
    ├── EngineError         a TensorRT engine that is missing, stale, cut off, or refused by its compiler
    ├── DeviceError         a device or provider that was named but is not there, or a machine that is too small
    ├── VerificationError   an export whose result differs from its source by more than allowed
    ├── TrainingError       training that can't start or continue
    ├── ServerError         a server that can't start (port in use, no key where one is needed)
    └── LinkError           a receiver of positions that is not there, or a line that can't carry them

A message says what was wrong, where, and what to do about it. The command line prints it as one line and exits
with code 2.
"""


class EdgegeoError(Exception):
    """Root of the tree: catch this to catch whatever edgegeo raises on purpose."""


class InputError(EdgegeoError):
    """A picture, text, coordinate or option that can't be used."""


class ImageError(InputError):
    """Bytes that are not an image, or an image too large or of an unusable shape."""


class CheckpointError(EdgegeoError):
    """A model folder that is missing, incomplete, or of an architecture edgegeo doesn't know."""


class BundleError(EdgegeoError):
    """A bundle that is missing, damaged, or of an unknown version."""


class GalleryError(EdgegeoError):
    """A gallery that is missing, damaged, or made by another bundle."""


class GalleryBusyError(GalleryError):
    """A gallery that another process is writing to: the same call may succeed later."""


class DeviceError(EdgegeoError):
    """A device or execution provider that was asked for by name but is not there, or a machine that is too small."""


class EngineError(EdgegeoError):
    """A TensorRT engine that is missing, stale, cut off, or refused by its compiler."""


class VerificationError(EdgegeoError):
    """An export whose result differs from its source by more than allowed."""


class TrainingError(EdgegeoError):
    """Training that can't start or continue."""


class ServerError(EdgegeoError):
    """A server that can't start."""


class LinkError(EdgegeoError):
    """A receiver of positions that is not there, or a line that can't carry them."""


def one_line(error: BaseException) -> str:
    """A library's error as part of a message: without line breaks, cut off; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
