"""Flags: what every flag has in common, and the ones that several verbs share."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from edgegeo.errors import InputError
from edgegeo.recipe import TokenBudget


def flag(*names: str, help: str, verb: str = "", **settings: Any) -> Any:
    """A typer option with its environment variable: EDGEGEO_ + the verb (for a flag of one verb) + the long name.

    `names` as typer takes them ("--batch", "-b", or "--x/--no-x"); the first one names the variable.
    """
    long = names[0].split("/")[0].lstrip("-").replace("-", "_")
    variable = "_".join(part for part in ("edgegeo", verb, long) if part).upper()
    return typer.Option(*names, help=help, envvar=variable, **settings)


JsonFlag = Annotated[bool, flag("--json", help="Print one JSON document on stdout; progress stays on stderr.")]
BundleFlag = Annotated[
    str | None,
    flag("--bundle", help="Bundle folder, or the name of one under the data home.", show_default="pocket-int8"),
]
GalleryFlag = Annotated[
    str | None,
    flag(
        "--gallery",
        help="Gallery folder of the same bundle, or postgresql://HOST/DATABASE/GALLERY.",
        show_default="the planet gallery of the bundle",
    ),
]
ThreadsFlag = Annotated[
    int | None,
    flag("--threads", help="Processor threads.", min=1, max=1024, show_default="all cores; 1 for small graphs"),
]
ProviderFlag = Annotated[str, flag("--provider", help="cpu, cuda, tensorrt, or auto (chooses, says which).")]
BatchFlag = Annotated[int, flag("--batch", help="Pictures or texts a call.", min=1, max=4096)]


def choices(text: str, known: Sequence[str], name: str) -> tuple[str, ...]:
    """The words of a comma-separated flag, each of them known, none twice; InputError otherwise."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        raise InputError(f"{name} takes some of {', '.join(known)}, not {', '.join(unknown) or 'nothing'}")
    return words


def numbers(text: str, name: str) -> tuple[int, ...]:
    """The whole numbers of a comma-separated flag, none twice; InputError otherwise."""
    try:
        found = tuple(dict.fromkeys(int(word) for word in text.split(",") if word.strip()))
    except ValueError:
        raise InputError(f"{name} takes whole numbers with commas between them, not {text!r:.40}") from None
    if not found:
        raise InputError(f"{name} takes at least one number")
    return found


def named_values(given: Sequence[str]) -> dict[str, Any]:
    """The NAME=VALUE words of an --option that may repeat; numbers, true, false and none as what they are."""
    words = {"true": True, "false": False, "none": None}
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--option takes NAME=VALUE, not {text!r}")
        number = int(value) if value.lstrip("-").isdigit() else value
        options[name] = words.get(value.lower(), number)
    return options


def token_budget(image_size: int | None = None, tiles: int | None = None, max_pixels: int | None = None) -> TokenBudget:
    """The budget that --image-size, --tiles and --max-pixels name; InputError for numbers no picture has."""
    try:
        return TokenBudget(image_size, tiles, max_pixels)
    except ValueError as error:
        raise InputError(f"--image-size, --tiles or --max-pixels: {error}") from None
