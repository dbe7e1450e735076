"""edgegeo eval: a bundle's accuracy on unseen places, in Recall@k and kilometres."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from edgegeo.cli.flags import BundleFlag, JsonFlag, ProviderFlag, ThreadsFlag, flag
from edgegeo.cli.output import emit_json, progress_bar, say, table
from edgegeo.cli.trust import PlotFlag, TrustFlag, print_trust, write_plot

if TYPE_CHECKING:
    from edgegeo.evaluate import Scores


def command(
    bundle: BundleFlag = None,
    places: Annotated[int, flag("--places", verb="eval", help="Places to score on.", min=1, max=1_000_000)] = 1000,
    split: Annotated[str, flag("--split", verb="eval", help="test or validation.")] = "test",
    tasks: Annotated[str, flag("--tasks", verb="eval", help="Some of retrieval,gps,rerank.")] = "retrieval,gps",
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
    """Score a bundle on places no training saw, with 95 % bootstrap intervals; or compare two bundles."""
    import json

    from edgegeo.cli.files import write_whole
    from edgegeo.cli.flags import choices
    from edgegeo.errors import InputError
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
        write_whole(output, lambda draft: draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8"))
    if as_json:
        emit_json(document)
        return
    _print(str(document["bundle"]), first, split, change, against)
    if trust is not None:
        print_trust(trust)


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
