"""A run's picture: loss and validation scores over its steps, as a PNG beside its diary."""

from pathlib import Path

from edgegeo.train.diary import read_diary


def plot_run(diary: Path, target: Path, title: str) -> None:
    """Draw a diary: the loss of each step on the left, shares (0 to 1) of each validation on the right."""
    from matplotlib.figure import Figure  # without pyplot: no window system, nothing global

    entries = read_diary(diary)
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    left = figure.subplots()
    steps = [e["step"] for e in entries if "loss" in e]
    left.plot(steps, [e["loss"] for e in entries if "loss" in e], color="0.6", linewidth=1, label="loss")
    left.set(xlabel="step", ylabel="loss", title=title)
    right = left.twinx()
    shares = sorted({name for e in entries for name in e if "recall_at" in name or "within" in name})
    for name in shares:
        known = [(e["step"], e[name]) for e in entries if name in e]
        right.plot(*zip(*known, strict=True), marker="o", markersize=3, label=name.replace("_", " "))
    right.set(ylim=(0, 1), ylabel="share on validation places")
    lines = [*left.get_lines(), *right.get_lines()]
    names = [str(line.get_label()) for line in lines]
    left.legend(lines, names, loc="center left", bbox_to_anchor=(1.12, 0.5), frameon=False, fontsize="small")
    figure.savefig(target)
