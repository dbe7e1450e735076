"""edgegeo eval: a bundle's accuracy on unseen places, in Recall@k and kilometres."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from edgegeo.cli.eval_data import (
    AdapterFlag,
    CheckpointFlag,
    DataFlag,
    DataRequest,
    DataRootFlag,
    DetailsFlag,
    JointFlag,
    LimitFlag,
    OptionFlag,
    SeedFlag,
    print_results,
    score,
)
from edgegeo.cli.files import check_target, write_whole
from edgegeo.cli.flags import BundleFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag, named_values
from edgegeo.cli.output import emit_json, json_text, progress_bar, say, table
from edgegeo.cli.trust import PlotFlag, TrustFlag, print_trust, write_plot
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.evaluate import Scores


def command(
    bundle: BundleFlag = None,
    data: DataFlag = None,
    data_root: DataRootFlag = None,
    split: Annotated[
        str | None, flag("--split", verb="eval", help="test, validation ... of the data.", show_default="test")
    ] = None,
    option: OptionFlag = None,
    checkpoint: CheckpointFlag = None,
    adapter: AdapterFlag = None,
    limit: LimitFlag = None,
    seed: SeedFlag = 0,
    joint: JointFlag = "refuse",
    details: DetailsFlag = None,
    places: Annotated[
        int | None,
        flag("--places", verb="eval", help="Planet places to score on.", min=1, max=1_000_000, show_default="1000"),
    ] = None,
    tasks: Annotated[
        str | None,
        flag("--tasks", verb="eval", help="Some of retrieval,gps,rerank,codes.", show_default="retrieval,gps"),
    ] = None,
    against: Annotated[
        str | None, flag("--against", verb="eval", help="Another bundle: report the change from it, paired by place.")
    ] = None,
    candidates: TrustFlag = 1,
    plot: PlotFlag = None,
    output: Annotated[Path | None, flag("--output", "-o", verb="eval", help="Also write the JSON here.")] = None,
    threads: ThreadsFlag = None,
    provider: ProviderFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Score a bundle on places no training saw, or anything on a data set (--data), with 95 % bootstrap intervals."""
    from edgegeo.home import find_bundle

    _check_flags(
        data,
        {"--data-root": data_root, "--option": option, "--checkpoint": checkpoint, "--adapter": adapter,
         "--limit": limit, "--details": details, "--seed": seed or None,
         "--joint": joint.replace("refuse", "") or None},
        {"--places": places, "--tasks": tasks, "--candidates": candidates if candidates > 1 else None, "--plot": plot},
    )  # fmt: skip
    check_target(output)
    if data is None:
        _planet(bundle, places or 1000, split or "test", tasks or "retrieval,gps", against, candidates, plot, output,
                threads, provider, as_json)  # fmt: skip
        return
    alone = checkpoint is not None and bundle is None
    bundles = tuple(find_bundle(one) for one in ([] if alone else [bundle]) + ([] if against is None else [against]))
    document, results = score(
        DataRequest(data, data_root, split, named_values(option or []), checkpoint, adapter, bundles, limit, seed,
                    joint, details, threads, provider)
    )  # fmt: skip
    if output is not None:
        _write(document, output)
    emit_json(document) if as_json else print_results(document, results)


def _planet(
    bundle: str | None, places: int, split: str, tasks: str, against: str | None, candidates: int, plot: Path | None,
    output: Path | None, threads: int | None, provider: str, as_json: bool,
) -> None:  # fmt: skip
    """The planet's own places, all roles of a bundle at once."""
    from edgegeo.cli.flags import choices
    from edgegeo.evaluate import TASKS, difference, evaluate
    from edgegeo.evaluate.trust import measure_trust
    from edgegeo.home import find_bundle

    wanted = choices(tasks, TASKS, "--tasks")
    if plot is not None and candidates < 2:
        raise InputError("--plot shows fusion and doubt; ask for them with --candidates 10")
    if split not in ("test", "validation", "train"):
        raise InputError(f"--split must be test, validation or train, not {split!r}")
    with progress_bar() as progress:
        first = evaluate(
            find_bundle(bundle), places, wanted, split, threads=threads, provider=provider, progress=progress
        )
        other = None
        if against is not None:
            other = evaluate(
                find_bundle(against), places, wanted, split, threads=threads, provider=provider, progress=progress
            )
        trust = None
        if candidates > 1:
            trust = measure_trust(
                find_bundle(bundle), places, split, candidates, threads=threads, provider=provider, progress=progress
            )
    document = {"bundle": str(find_bundle(bundle)), **first.to_dict()}
    change = {name: vars(metric) for name, metric in difference(first, other).items()} if other is not None else {}
    if other is not None:
        document |= {"against": str(find_bundle(against)), "before": other.to_dict(), "change": change}
    if trust is not None:
        document["trust"] = trust.to_dict()
        if plot is not None:
            write_plot(trust, plot)
    if output is not None:
        _write(document, output)
    if as_json:
        emit_json(document)
        return
    _print(str(document["bundle"]), first, split, change, against)
    if trust is not None:
        print_trust(trust)


def _check_flags(data: str | None, of_data: dict[str, Any], of_planet: dict[str, Any]) -> None:
    """Refuse a flag that would be ignored."""
    given, rest = (of_planet, "without --data") if data else (of_data, "with --data NAME")
    for name, value in given.items():
        if value not in (None, []):
            raise InputError(f"{name} only works {rest}" + ("; use --limit or --option" if data else ""))


def _write(document: dict[str, Any], output: Path) -> None:
    write_whole(output, lambda draft: draft.write_text(json_text(document) + "\n", encoding="utf-8"))


def _print(bundle: str, scores: "Scores", split: str, change: dict[str, Any], against: str | None) -> None:
    from edgegeo.cli.cards import metric_text

    say(f"{bundle}: {scores.places:,} places of the {split} split, 95 % intervals")
    rows = [(name, metric_text(name, vars(metric))) for name, metric in scores.metrics.items()]
    if not change:
        table(("metric", "score"), rows)
    else:
        table(
            ("metric", "score", f"change from {against}"), [(*row, metric_text(row[0], change[row[0]])) for row in rows]
        )
