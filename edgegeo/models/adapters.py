"""Adapters at export time: LoRA/DoRA merged with proof, shared latent queries read."""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import ImageSpec, Segment
from edgegeo.errors import CheckpointError, one_line
from edgegeo.models.checkpoint import Checkpoint, read_json, refuse_pickles
from edgegeo.models.family import Family
from edgegeo.models.lineage import require_base
from edgegeo.models.prompts import fill_ids
from edgegeo.models.weights import is_lean, read_header, shared_view, widen_as_it_runs
from edgegeo.runtime.pictures import prepare_picture

SLQ_FILE, SLQ_CONFIG = "slq.safetensors", "slq_config.json"
EMBEDDING_CONFIG = "edgegeo_embedding.json"
"""Beside a LoRA whose embedding is not the last position's state: {"pooling": "eos", "mean" or "last_k", "last": k}.
"matryoshka": [d, ...] where the first d numbers were trained to serve alone, for latent queries too."""
POOLINGS = ("eos", "mean", "last_k")


@dataclass(frozen=True)
class Merged:
    """A model with an adapter folded into its weights, and the proof that nothing else changed."""

    model: Any
    """Modules of its own around the base's tensors; only adapted matrices differ. The base is untouched."""
    attached: Any
    """The same with the adapter attached as PEFT runs it."""
    difference: float
    """Largest absolute difference of the last hidden states, merged against attached, on a seeded picture and text."""
    scale: float
    """Largest absolute hidden state of the probe, to judge `difference` by."""
    moved: float
    """Largest absolute change that the adapter makes to the same hidden states: 0 is an adapter without effect."""


class Folded(torch.nn.Module):
    """A PEFT layer whose `weight` and `bias` are the merged ones, made in float32 whenever they are asked for.

    Stands where a large model has an adapted layer: the merged matrices of a whole model never exist together.
    """

    layer: Any

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    @property
    def weight(self) -> torch.Tensor:
        """As the layer it stands for has it, float32."""
        weight: torch.Tensor = fold(self.layer).weight
        return weight

    @property
    def bias(self) -> torch.Tensor | None:
        """As the layer it stands for has it."""
        if any(getattr(self.layer, "lora_bias", {}).values()):
            merged: torch.Tensor | None = fold(self.layer).bias
            return merged
        own: torch.Tensor | None = self.layer.get_base_layer().bias
        return own

    def __getattr__(self, name: str) -> Any:
        """Sizes and strides of the layer it stands for."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer: Any = super().__getattr__("layer")
            return getattr(layer.get_base_layer(), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The plain layer with merged weights."""
        return fold(self.layer)(*args, **kwargs)


@contextmanager
def hushed_peft() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5 for a renamed property; nobody who uses edgegeo can answer that warning.

    What an adapter lacks edgegeo judges itself.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def is_queries(folder: Path) -> bool:
    """Whether an adapter folder holds shared latent queries (SLQ), with or without a LoRA beside them."""
    return (folder / SLQ_FILE).is_file()


def is_lora(folder: Path) -> bool:
    """Whether an adapter folder holds a LoRA of PEFT's."""
    return (folder / "adapter_config.json").is_file()


def load_pooling(folder: Path) -> tuple[str, int]:
    """How the states of an adapter become one embedding: pooling, and of how many last positions."""
    file = folder / EMBEDDING_CONFIG
    if not file.is_file():
        return "eos", 1
    found = read_json(file)
    pooling, last = found.get("pooling", "eos"), found.get("last", 1)
    if pooling not in POOLINGS or type(last) is not int or last < 1:
        raise CheckpointError(f"{file} asks for pooling {pooling!r:.40}, last {last!r:.20}; use {', '.join(POOLINGS)}")
    return pooling, last


def load_matryoshka(folder: Path) -> tuple[int, ...]:
    """Numbers of leading dimensions that an adapter was trained to serve alone with, ascending; () for none."""
    file = folder / EMBEDDING_CONFIG
    found = read_json(file).get("matryoshka", []) if file.is_file() else []
    if not isinstance(found, list) or any(type(dim) is not int or dim < 1 for dim in found):
        raise CheckpointError(f"{file} holds matryoshka {found!r:.60}; write a list of numbers of dimensions")
    return tuple(sorted(set(found)))


def merge_adapter(checkpoint: Checkpoint, folder: str | Path) -> Merged:
    """Fold a PEFT adapter into a view of the checkpoint's model and compare it with the attached adapter.

    LoRA, rsLoRA and DoRA with ranks and alphas by layer, and modules saved whole. CheckpointError when the folder is
    no such adapter, holds pickles, doesn't fit the model, says that it belongs to another one (`require_base`), or
    changes what the roles share (biases, embeddings).
    """
    from peft import PeftModel

    folder = Path(folder)
    model, family, spec = checkpoint.model, checkpoint.family, checkpoint.image
    config = check_adapter(folder, dict(model.named_parameters(remove_duplicate=False)))
    require_base(checkpoint, folder)
    try:
        with hushed_peft():
            wrapped = PeftModel.from_pretrained(_view_for(model, config), str(folder), is_trainable=False).eval()
    except Exception as error:  # PEFT raises many kinds for an adapter of another model
        raise CheckpointError(f"the adapter {folder} doesn't fit this checkpoint ({one_line(error)})") from None
    _require_whole(wrapped, folder)
    attached = wrapped.base_model.model
    if type(attached.get_input_embeddings()) is not type(model.get_input_embeddings()):
        raise CheckpointError(f"the adapter {folder} changes the token embeddings; retrain it without them")
    lean = is_lean(model)
    if lean:
        widen_as_it_runs(attached)
    before, wanted = probe(model, family, spec), probe(attached, family, spec)
    merged = _fold_all(shared_view(attached), lean, folder)
    got = probe(merged, family, spec)
    return Merged(
        model=merged,
        attached=attached,
        difference=float((got - wanted).abs().max()),
        scale=float(wanted.abs().max()),
        moved=float((wanted - before).abs().max()),
    )


def _require_whole(wrapped: Any, folder: Path) -> None:
    """CheckpointError where an adapter holds matrices for more or fewer layers than the model takes.

    PEFT drops the surplus in silence and only warns of what lacks. Counted, since it also loads names of old versions.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    taken = sum("lora_" in key for key in get_peft_model_state_dict(wrapped))
    with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as opened:
        held = sum("lora_" in key for key in opened.keys())  # noqa: SIM118  (not a dict)
    if held != taken:
        raise CheckpointError(
            f"the adapter {folder} doesn't fit this checkpoint (it holds {held} matrices, the layers it names here "
            f"take {taken}): it was trained for a model of another size or kind; name the checkpoint it belongs to"
        )


def check_adapter(folder: Path, base: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The adapter's configuration; CheckpointError unless it can be merged beside others on one base.

    base: the parameters of the model it is for, by name.
    """
    from safetensors import safe_open

    file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{folder} is not an adapter: it has no adapter_config.json; name a PEFT folder")
    refuse_pickles(folder)
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind, bias = config.get("peft_type"), config.get("bias", "none")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} can't be read as JSON ({error}); save the adapter again") from None
    if kind != "LORA":
        raise CheckpointError(
            f"the adapter {folder} doesn't fit this checkpoint (edgegeo merges LoRA, not {kind!r:.40})"
        )
    if not weights.is_file():
        raise CheckpointError(f"{folder} lacks {weights.name}; save the adapter again with safe_serialization=True")
    read_header(weights)
    if bias != "none":
        raise CheckpointError(
            f"the adapter {folder} trains the base's own biases (bias='{bias!s:.40}'), which its other roles share; "
            "train it with bias='none', or merge it into a checkpoint of its own (peft: merge_and_unload)"
        )
    saved = _saved_modules(config)
    with safe_open(str(weights), framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118  (not a dict)
            if "lora_" not in key and not any(f".{name}." in f".{key}" for name in saved):
                own = base.get(key.removeprefix("base_model.model.").replace(".base_layer.", "."))
                value = opened.get_tensor(key)
                # PEFT writes a tied embedding table beside an adapted head; loading what is there already is harmless.
                if own is None or own.shape != value.shape or not torch.equal(own.float(), value.float()):
                    raise CheckpointError(
                        f"the adapter {folder} changes {key} of the base itself, which other roles share; train it "
                        "without, or merge it into a checkpoint of its own (peft: merge_and_unload)"
                    )
    return config


def _saved_modules(config: dict[str, Any]) -> list[str]:
    return list(config.get("modules_to_save") or [])


def fold(layer: Any) -> Any:
    """The plain layer under a PEFT layer, with the adapter merged in float32 by PEFT's own arithmetic."""
    copied = shared_view(layer)
    base = copied.get_base_layer()
    for name, parameter in base.named_parameters(recurse=False):
        # Cloned, because merging writes into it.
        setattr(base, name, torch.nn.Parameter(parameter.detach().float().clone(), requires_grad=False))
    copied.merge()
    return base


def _fold_all(model: Any, lazily: bool, folder: Path) -> Any:
    """Replace every PEFT layer of a model by the merged one; where nothing changes, by the base's own."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import AuxiliaryTrainingWrapper

    found = [(name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer | AuxiliaryTrainingWrapper)]
    inside: tuple[str, ...] = ()
    for name, layer in found:
        if name.startswith(inside) and inside:
            continue
        inside = (*inside, f"{name}.")
        if isinstance(layer, AuxiliaryTrainingWrapper):
            plain = layer.unload_and_optionally_merge_module(True, False, None)
        elif not hasattr(layer.get_base_layer(), "weight") or not hasattr(layer, "get_delta_weight"):
            raise CheckpointError(f"the adapter {folder} adapts {name} in a way that this version can't merge")
        else:
            base, merged = layer.get_base_layer(), fold(layer)
            same = all(
                torch.equal(value, getattr(base, part).float())
                for part, value in merged.named_parameters(recurse=False)
            )
            plain = base if same else Folded(layer) if lazily else merged
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, plain)
    return model.eval()


def _view_for(model: Any, config: dict[str, Any]) -> Any:
    """A view to attach an adapter to; modules that it saved whole get a float32 copy, so that nothing is rounded."""
    view = shared_view(model)
    for name, module in list(view.named_modules()):
        if name.rpartition(".")[2] in _saved_modules(config):
            parent, _, leaf = name.rpartition(".")
            setattr(view.get_submodule(parent), leaf, copy.deepcopy(module).float())
    return view


@torch.no_grad()
def probe(model: Any, family: Family, spec: ImageSpec, seed: int = 0) -> torch.Tensor:
    """Last hidden states (1, tokens, hidden) of a seeded picture followed by seeded token ids."""
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = prepare_picture(Image.fromarray(noise), spec)
    placeholder = family.image_token_id(model.config)
    words = np.random.default_rng(seed).integers(0, model.config.get_text_config().vocab_size, 24)
    words[words == placeholder] = 0  # one picture only
    ids = fill_ids((Segment(image=0), Segment(ids=tuple(words.tolist()))), placeholder, [picture.layout])
    return family.hidden(model, torch.tensor([ids]), [picture])


def load_queries(folder: str | Path, hidden: int | None = None) -> NDArray[np.float32]:
    """Shared latent queries (queries, hidden) float32; CheckpointError if missing, or not as wide as `hidden`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = Path(folder) / SLQ_FILE
    if not file.is_file():
        raise CheckpointError(f"no shared latent queries at {file}; train them: edgegeo train retriever --method slq")
    try:
        queries = np.asarray(load_file(str(file))["queries"], np.float32)
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"{file} holds no queries ({error}); train them again") from None
    if queries.ndim != 2 or (hidden is not None and queries.shape[1] != hidden):
        raise CheckpointError(f"{file} holds queries of shape {queries.shape}, this model needs (any, {hidden})")
    return queries
