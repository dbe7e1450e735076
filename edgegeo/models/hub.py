"""A checkpoint named by folder or by hub repository becomes a folder on disk."""

import re
from pathlib import Path

from edgegeo.errors import CheckpointError, one_line

_REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.onnx", "*.onnx_data")
"""What is downloaded: never a pickle, never code."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.onnx", "*.onnx_data")


def is_repository(source: str) -> bool:
    """Whether a name can only be a hub repository: no folder, and no path either."""
    named = _REPOSITORY.fullmatch(source)
    return named is not None and not source.startswith((".", "/", "~")) and not Path(source).exists()


def checkpoint_name(folder: Path) -> str:
    """What a checkpoint is called: its folder, or the repository whose snapshot in the hub's cache it is."""
    return repository_of(folder).rpartition("/")[2] or folder.resolve().name


def repository_of(folder: Path) -> str:
    """ORG/NAME of the repository whose snapshot in the hub's cache a folder is; "" for any other folder."""
    whole = folder.resolve()
    _, _, name = whole.parent.parent.name.partition("models--")
    return name.replace("--", "/", 1) if whole.parent.name == "snapshots" else ""


def find_checkpoint(source: str, weights: bool = True) -> Path:
    """The folder of a checkpoint: `source` itself if it is one, else a Hugging Face repository, ORG/NAME[@REVISION].

    The only call in edgegeo that opens a connection, and only for a name that is no folder; what was downloaded before
    is found without one. `weights=False` leaves the weights where they are, for a look at the configuration.
    CheckpointError for a name that is neither, or can't be had, with the remedy.
    """
    named = _REPOSITORY.fullmatch(source)
    if named is None or not is_repository(source):
        return Path(source).expanduser()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    name, revision = named["name"], named["revision"]
    try:
        left = None if weights else list(WEIGHTS)
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES), ignore_patterns=left))
    except GatedRepoError:
        reason = "its owner asks for consent: accept the terms on the hub and run 'hf auth login'"
    except RepositoryNotFoundError:
        reason = "the hub has no such repository, or it is private: check the name, or run 'hf auth login'"
    except HFValidationError:
        reason = "that is no repository name: use ORG/NAME"
    except (OSError, HfHubHTTPError) as error:  # offline, interrupted, disk full
        reason = f"the hub can't be reached ({one_line(error)}): download it first, or name a folder"
    raise CheckpointError(f"no folder {source}, and {name} can't be downloaded: {reason}") from None
