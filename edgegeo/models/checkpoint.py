"""A checkpoint folder in Hugging Face layout, opened for training, export or reference runs."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgegeo.bundle import ImageSpec
from edgegeo.errors import CheckpointError, one_line
from edgegeo.models.family import Family, TextSpec, find_family
from edgegeo.recipe import TokenBudget
from edgegeo.runtime.pictures import most_positions
from edgegeo.schema import SchemaFault, parse

SETTINGS_NAME = "edgegeo_model.json"
REQUIRED_FILES = ("config.json", "tokenizer.json")
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
MIN_TRANSFORMERS = (5, 20)
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
"""Files that can hold pickles, which run code when they are opened."""
ADAPTERS = "adapters"


@dataclass(frozen=True)
class AnswerForm:
    """How a checkpoint writes `<answer>lat, lon</answer>`: what its grammar lets through."""

    form: str = "free"
    """"free": `lat, lon` or `lat: 1.2 lon: 3.4`, as GeoLocSFT writes them; "fixed": signs, and zeros in front, so that
    every digit has its own place (`+12.3, -045.6`)."""
    decimals: int = 3
    """Most decimals ("fixed": exactly these). Three are 110 m, a ninth of the finest threshold of the papers."""
    lead: str = ""
    """What stands between prompt and answer: " " where the chat template writes "Assistant: " before an answer."""

    def __post_init__(self) -> None:
        if self.form not in ("free", "fixed"):
            raise ValueError(f"form must be free or fixed, not {self.form!r}")
        if not 0 <= self.decimals <= 12:
            raise ValueError(f"decimals must be between 0 and 12, not {self.decimals}")
        if not self.lead.isascii():
            raise ValueError("lead must be plain ASCII")


@dataclass(frozen=True)
class ModelSettings:
    """edgegeo_model.json: how a checkpoint is asked. A checkpoint without the file gets its family's defaults."""

    prompts: dict[str, str]
    """Templates by role: embed_text, embed_image, rerank, generate (slots: edgegeo/models/prompts.py); and, where the
    model is asked which of two candidates fits, rerank_pair."""
    yes: tuple[str, ...]
    """Casings of the word that means "the same place"; those of one token are used."""
    no: tuple[str, ...]
    first: tuple[str, ...] = ("A", " A")
    second: tuple[str, ...] = ("B", " B")
    """Casings of the words for the first and the second candidate, of rerank_pair."""
    adapters: dict[str, str | None] = field(default_factory=dict)
    """Default adapter folder under adapters/ by role (embed, rerank, generate); None for the base as it is."""
    max_new_tokens: int = 32
    answer: AnswerForm = AnswerForm()
    phrasings: tuple[str, ...] = ()
    """Other ways to ask for the position (templates as in `prompts`): candidates are asked for in turn."""
    planet_seed: int | None = None
    """The planet the checkpoint was trained on; None for a model of the real Earth."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: the model in evaluation mode and all that belongs to it."""

    path: Path
    family: Family
    config: Any
    """The transformers configuration object."""
    model: Any
    """The family's transformers model, on the CPU, eval; float32, or as stored where that would be too large."""
    tokenizer: Any
    """tokenizers.Tokenizer."""
    image: ImageSpec
    settings: ModelSettings
    stop_ids: tuple[int, ...]

    def text_spec(self) -> TextSpec:
        """How a dual encoder reads a text."""
        file = self.path / "tokenizer_config.json"
        pad = read_json(file).get("pad_token") if file.is_file() else None
        token = pad.get("content") if isinstance(pad, dict) else pad
        return self.family.text_spec(self.config, self.tokenizer, token)

    def reads(self, text: str) -> bool:
        """Whether a text fits; dual encoders are the ones that read little."""
        if not self.family.text:
            return True
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids) <= self.text_spec().longest

    def adapter(self, role: str) -> Path | None:
        """Folder of the role's default adapter, None where the base itself plays the role."""
        name = self.settings.adapters.get(role)
        return self.path / ADAPTERS / name if name else None


def packaged_checkpoint() -> Path:
    """The folder of pocket, the small checkpoint inside the package."""
    return Path(__file__).resolve().parent.parent / "pocket"


def load_checkpoint(path: str | Path | None = None, budget: TokenBudget | None = None) -> Checkpoint:
    """Open a checkpoint folder; None opens pocket. CheckpointError says what is missing or unknown, and the remedy."""
    check_transformers()
    folder = check_folder(packaged_checkpoint() if path is None else Path(path))
    config = read_json(folder / "config.json")
    family = _family(folder, config)
    tokenizer = load_tokenizer(folder)
    model = load_model(folder, "AutoModel" if family.text else "AutoModelForImageTextToText")
    image = read_image_spec(folder, family, model.config, tokenizer, budget)
    settings = read_settings(folder, tokenizer, family)
    family.check_prompts(settings.prompts, image)
    return Checkpoint(
        path=folder,
        family=family,
        config=model.config,
        model=model,
        tokenizer=tokenizer,
        image=image,
        settings=settings,
        stop_ids=stop_ids(folder, model.config),
    )


def find_config(folder: Path) -> tuple[Family, Any]:
    """Family and transformers configuration of a folder that need not hold weights yet; CheckpointError."""
    from transformers import AutoConfig

    check_transformers()
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint at {folder}; name a folder in Hugging Face layout")
    family = _family(folder, read_json(folder / "config.json"))
    try:
        return family, AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for settings of the wrong type
        raise CheckpointError(f"{folder / 'config.json'} is no usable configuration ({one_line(error)})") from None


def _family(folder: Path, config: dict[str, Any]) -> Family:
    if stored := config.get("quantization_config"):
        method = stored.get("quant_method") if isinstance(stored, dict) else stored
        raise CheckpointError(
            f"{folder} holds weights that are quantised already ({method!r:.40}); edgegeo quantises by itself: use the "
            "original in bfloat16, float16 or float32"
        )
    try:
        return find_family(config.get("model_type"))
    except CheckpointError as error:
        hint = "; it runs its own code, which edgegeo never does: use its '-HF' version" if "auto_map" in config else ""
        raise CheckpointError(f"{folder}: {error}{hint}") from None


def load_model(folder: Path, kind: str = "AutoModelForImageTextToText") -> Any:
    """The model of a folder in evaluation mode, on the CPU; offline. kind: transformers' own class.

    Float32, or as it is stored where that would be too large; it then still computes in float32 (models/weights.py).
    """
    import transformers

    from edgegeo.models.weights import stored_weights, widen_as_it_runs

    stored = stored_weights(folder)

    try:
        model, info = getattr(transformers, kind).from_pretrained(
            folder, dtype=stored.loaded_dtype, local_files_only=True, use_safetensors=True, attn_implementation="sdpa",
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as error:  # safetensors and transformers raise many kinds for damaged files
        raise CheckpointError(f"the weights in {folder} can't be loaded ({one_line(error)}); save them again") from None
    # transformers fills both kinds with random numbers and only logs it.
    for key, held, wanted in info["mismatched_keys"]:
        raise CheckpointError(
            f"the weights in {folder} don't fit its config.json: {key} has shape {tuple(held)} where "
            f"{tuple(wanted)} is asked for; download or save both again"
        )
    tied = {"lm_head.weight"} if getattr(model.config, "tie_word_embeddings", False) else set()
    if lacking := sorted(set(info["missing_keys"]) - tied):
        raise CheckpointError(f"the weights in {folder} lack {', '.join(lacking[:3])}; download or save them again")
    if model.can_generate():
        model.generation_config.cache_implementation = None
    if stored.lean:
        widen_as_it_runs(model)
    return model.eval()


def load_tokenizer(folder: Path) -> Any:
    """tokenizers.Tokenizer of a folder."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the Rust side raises bare Exception
        raise CheckpointError(f"{folder / 'tokenizer.json'} is not a tokenizer ({error}); save it again") from None


def stop_ids(folder: Path, config: Any) -> tuple[int, ...]:
    """Token ids that end an answer: generation_config.json, else the text configuration."""
    file = folder / "generation_config.json"
    found: Any = read_json(file).get("eos_token_id") if file.is_file() else None
    if found is None:
        found = config.get_text_config().eos_token_id
    ids = tuple(found) if isinstance(found, (list, tuple)) else (found,)
    if not ids or any(type(one) is not int for one in ids):
        raise CheckpointError(
            f"{folder} names no token that ends an answer (eos_token_id {found!r:.40}); put its id into "
            "generation_config.json"
        )
    return ids


def check_transformers() -> None:
    """CheckpointError for a transformers version whose models edgegeo's graphs were not compared with."""
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if not MIN_TRANSFORMERS <= version < (6, 0):
        raise CheckpointError(
            f"transformers {transformers.__version__} is not supported (its models differ from those the graphs are "
            "verified against); install 'transformers>=5.20,<6'"
        )


def check_folder(folder: Path) -> Path:
    """The folder itself if it holds what a checkpoint needs; CheckpointError names what it lacks."""
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint at {folder}; name a folder in Hugging Face layout")
    refuse_pickles(folder)
    lacking = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in PREPROCESSORS):
        lacking.append(PREPROCESSORS[0])
    if not any(folder.glob("*.safetensors")):
        lacking.append("model.safetensors")
    if lacking:
        raise CheckpointError(f"{folder} lacks {', '.join(lacking)}; download or save the checkpoint again")
    return folder


def refuse_pickles(folder: Path) -> None:
    """CheckpointError if a folder of weights holds files that run code when opened; edgegeo reads safetensors only."""
    unsafe = sorted(file.name for file in folder.iterdir() if file.suffix in UNSAFE and file.is_file())
    if unsafe:
        raise CheckpointError(
            f"{folder} holds {', '.join(unsafe[:3])}, which can run code when opened; edgegeo reads safetensors only: "
            "save the weights as safetensors and remove the other files"
        )


def read_image_spec(
    folder: Path, family: Family, config: Any, tokenizer: Any, budget: TokenBudget | None = None
) -> ImageSpec:
    """Image preprocessing of a checkpoint under a budget.

    CheckpointError for settings that edgegeo does not reproduce, or pictures that the decoder has no room for.
    """
    try:
        spec = family.image_spec(config, image_settings(folder), tokenizer, budget)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the image settings in {folder} can't be read ({type(error).__name__}: {error}); download or save "
            "preprocessor_config.json again"
        ) from None
    if not family.text:
        room, taken = config.get_text_config().max_position_embeddings, 2 * most_positions(spec)
        if taken >= room:
            smaller = "--max-pixels" if spec.max_pixels else "--image-size or --tiles"
            raise CheckpointError(
                f"two pictures, which re-ranking compares, would take {taken:,} of the decoder's {room:,} positions; "
                f"choose a smaller {smaller}"
            )
    return spec


def image_settings(folder: Path) -> dict[str, Any]:
    """Settings of the image processor: its own file, or its part of processor_config.json."""
    for name in PREPROCESSORS:
        if (folder / name).is_file():
            data = read_json(folder / name)
            inner = data.get("image_processor")
            if isinstance(inner, dict):
                return inner
            if name == PREPROCESSORS[0]:
                return data
    raise CheckpointError(f"{folder} lacks {PREPROCESSORS[0]}; download or save the checkpoint again")


def read_settings(folder: Path, tokenizer: Any, family: Family) -> ModelSettings:
    """edgegeo_model.json of a checkpoint, or its family's defaults where there is none."""
    file = folder / SETTINGS_NAME
    data = read_json(file) if file.is_file() else family.default_settings(tokenizer)
    try:
        return parse(ModelSettings, data, SETTINGS_NAME)
    except SchemaFault as fault:
        raise CheckpointError(f"{file}: {fault}") from None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON table; CheckpointError for a file that is none, or that is not there."""
    if not file.is_file():
        raise CheckpointError(f"{file.parent} lacks {file.name}; download or save the checkpoint again")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} can't be read as JSON ({error}); download or save it again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} is not a JSON table; download or save it again")
    return data
