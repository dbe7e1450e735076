"""Flags of a generated answer, and what they mean to the decoder."""

import sys
from typing import TYPE_CHECKING, Annotated

from edgegeo.cli.flags import flag
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.runtime import Decoding
    from edgegeo.runtime.fusion import Prior

GenerateFlag = Annotated[
    bool, flag("--generate/--no-generate", help="Whether the model writes a position for a photo.")
]
CandidatesFlag = Annotated[int, flag("--candidates", help="Answers to draw from one reading of the photo.", min=1)]
TemperatureFlag = Annotated[
    float | None,
    flag("--temperature", help="How freely candidates are drawn.", show_default="0.7 for candidates, else 0: greedy"),
]
TopPFlag = Annotated[
    float | None,
    flag(
        "--top-p",
        help="Share of the probability that tokens are drawn from.",
        show_default="0.95 for candidates, else 1",
    ),
]
BeamsFlag = Annotated[int, flag("--beams", help="Answers followed at once; the most likely one is kept.")]
SeedFlag = Annotated[int, flag("--seed", verb="locate", help="Seed of the draws.")]
ModeFlag = Annotated[str, flag("--mode", help="answer, reason (words first) or caption (GeoLocSFT's JSON).")]
GrammarFlag = Annotated[bool, flag("--grammar/--no-grammar", help="Whether only well-formed answers can be written.")]
StreamFlag = Annotated[bool, flag("--stream", help="Show the answer on stderr while it is written.")]
PriorFlag = Annotated[
    str | None,
    flag("--prior", verb="locate", help="LAT,LON,KM: a place known from elsewhere, right in four of five cases."),
]
LeastFlag = Annotated[
    float, flag("--min-confidence", verb="locate", help="Withhold answers less sure than this to be within 750 km.")
]


def prior_of(text: str | None) -> "Prior | None":
    """The prior that --prior names; InputError for anything but LAT,LON,KM."""
    from edgegeo.runtime.fusion import Prior

    return None if text is None else Prior.parse(text)


def decoding_of(
    candidates: int, temperature: float | None, top_p: float | None, beams: int, seed: int, mode: str, grammar: bool
) -> "Decoding":
    """The decoder's settings; InputError for flags that exclude each other."""
    from edgegeo.runtime import Decoding

    drawn = candidates > 1 and beams == 1
    if drawn and temperature == 0:
        raise InputError("--temperature 0 writes the same candidate every time; leave it out, or use --beams")
    if temperature is None:
        temperature = 0.7 if drawn else 0.0
    return Decoding(
        mode=mode, grammar=None if grammar else False, temperature=temperature,
        top_p=top_p if top_p is not None else 0.95 if drawn else 1.0, beams=beams, seed=seed,
    )  # fmt: skip


def show(number: int, tokens: tuple[int, ...], text: str) -> None:
    """A piece of the answer on stderr; of several candidates only the first is shown."""
    if number == 0:
        sys.stderr.write(text)
        sys.stderr.flush()
