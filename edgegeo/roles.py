"""What a bundle offers: its roles, each with the components it runs and its prompts frozen to token ids."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """One piece of a frozen prompt. Exactly one of the fields is set."""

    ids: tuple[int, ...] | None = None
    """Token ids as they are."""
    image: int | None = None
    """A slot for the n-th picture: its image tokens and the marks around them (`ImageSpec.marks`)."""
    text: int | None = None
    """A slot for the n-th text, tokenised without special tokens."""

    def __post_init__(self) -> None:
        if sum(v is not None for v in (self.ids, self.image, self.text)) != 1:
            raise ValueError("a prompt segment sets exactly one of ids, image, text")


@dataclass(frozen=True)
class EmbedRole:
    """Text and image embedding (NGCG-MLLM with pooling "eos", SLQ with pooling "queries", CLIP and SigLIP "dual")."""

    vision: str
    trunk: str
    """What reads the prompt: the decoder, or with pooling "dual" the text encoder, which reads texts only."""
    text_prompt: tuple[Segment, ...]
    image_prompt: tuple[Segment, ...]
    pooling: str
    """The mean state of: "eos" the last token; "mean" the prompt; "last_k" the last `last` tokens; "queries" the shared
    latent queries behind the prompt. "dual": each component gives a whole embedding itself."""
    dim: int
    max_text_tokens: int
    """Longer texts are an error, never cut in silence."""
    queries: str | None = None
    """File of the shared latent queries, with pooling "queries"."""
    last: int = 1
    pad_id: int = 0
    """Token id behind texts that are shorter than others, with pooling "dual"."""
    pad_to: int = 0
    """Positions that every text is padded to, with pooling "dual"; 0: to the longest of a batch."""
    matryoshka: tuple[int, ...] = ()
    """Leading dimensions that the model was trained to serve alone with, ascending."""
    scales: str | None = None
    """File of the steps (1 + lengths, dim) float32 of int8 codes, fitted on validation places: a row for whole
    embeddings, and one for each of `matryoshka`, zeros behind its length."""
    lower_case: bool = False
    """Whether texts are lower-cased before the tokenizer: the model was trained so, and its tokenizer does not."""


@dataclass(frozen=True)
class PairQuestion:
    """Which of two candidates fits a query, from a few head rows at the first answer position."""

    image_prompt: tuple[Segment, ...]
    """Query picture in image slot 0, the candidates in image slots 1 and 2."""
    text_prompt: tuple[Segment, ...]
    """Query text in text slot 0, the candidates in image slots 0 and 1."""
    first_ids: tuple[int, ...]
    second_ids: tuple[int, ...]
    rows: str
    """File of the head rows, in the order of first_ids then second_ids."""
    bias: tuple[float, ...] = ()


@dataclass(frozen=True)
class RerankRole:
    """Yes/no pair scoring: p(yes) / (p(yes) + p(no)) at the first answer position, from a few head rows."""

    vision: str
    trunk: str
    image_prompt: tuple[Segment, ...]
    """Query picture in image slot 0, candidate picture in image slot 1."""
    text_prompt: tuple[Segment, ...]
    """Query text in text slot 0, candidate picture in image slot 0."""
    yes_ids: tuple[int, ...]
    no_ids: tuple[int, ...]
    rows: str
    """File of the head rows, yes rows first, in the order of yes_ids then no_ids."""
    bias: tuple[float, ...] = ()
    """Head bias of the same rows; empty for heads without one."""
    image_prompt_turned: tuple[Segment, ...] = ()
    text_prompt_turned: tuple[Segment, ...] = ()
    """The same prompts with the candidate first, their slots numbered as above; empty in older bundles."""
    pair: PairQuestion | None = None
    """None where the model is not asked which of two fits."""


@dataclass(frozen=True)
class GenerateRole:
    """GPS generation: greedy decoding of the answer text (GeoLocSFT)."""

    vision: str
    trunk: str
    head: str
    prompt: tuple[Segment, ...]
    stop_ids: tuple[int, ...]
    max_new_tokens: int
    grammar: str | None = None
    """File of the answer's grammar (edgegeo/runtime/grammar.py); without one every token is allowed."""
    phrasings: tuple[tuple[Segment, ...], ...] = ()
    """Other prompts that ask the same."""


@dataclass(frozen=True)
class Roles:
    """What the bundle offers; an absent role is None and asking for it is a clear error."""

    embed: EmbedRole | None = None
    rerank: RerankRole | None = None
    generate: GenerateRole | None = None
