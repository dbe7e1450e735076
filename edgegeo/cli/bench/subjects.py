"""The bundles that a sweep names, or those that its checkpoint is exported to."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from edgegeo.cli.flags import token_budget
from edgegeo.cli.output import hush_libraries, note
from edgegeo.errors import BundleError, InputError
from edgegeo.recipe import PRECISIONS, load_recipe, preset, with_budget

if TYPE_CHECKING:
    from edgegeo.bench.cells import Subject
    from edgegeo.bench.definition import Models
    from edgegeo.bundle import Bundle
    from edgegeo.progress import Progress
    from edgegeo.recipe import Recipe


def open_subjects(models: "Models", progress: "Progress") -> "list[Subject]":
    """Every model of a sweep; missing bundles are exported, where the export extra is installed."""
    return _named(models.bundles) if models.bundles else _exported(models, progress)


def _named(bundles: tuple[str, ...]) -> "list[Subject]":
    from edgegeo.bench.cells import Subject
    from edgegeo.bundle import open_bundle
    from edgegeo.home import find_bundle

    subjects = []
    for name in bundles:
        opened = open_bundle(find_bundle(name))
        parts = {part.precision for part in opened.manifest.components.values()}
        usual = next((p for p in PRECISIONS if p in opened.manifest.name.split("-")), None)
        subjects.append(Subject(usual or "+".join(sorted(parts)), opened))
    if len({subject.label for subject in subjects}) < len(subjects):
        subjects = [replace(s, label=f"{s.label} {s.bundle.path.name}") for s in subjects]
    if len({subject.bundle.fingerprint for subject in subjects}) < len(subjects):
        raise InputError("the same bundle is named twice; name each once")
    return subjects


def _recipes(models: "Models") -> "dict[str, Recipe]":
    """The recipes of every precision, file and budget, by the label that rows carry."""
    lists = (models.image_size, models.tiles, models.max_pixels)
    budgets = [token_budget(*chosen) for chosen in product(*(values or (None,) for values in lists))]
    named = {precision: preset(precision) for precision in models.precision}
    for file in models.recipes:
        recipe = load_recipe(file)
        named[recipe.name] = recipe
    return {
        f"{name} {budget.label.replace('-', ' ')}".rstrip(): with_budget(recipe, budget)
        for name, recipe in named.items()
        for budget in budgets
    }


def _exported(models: "Models", progress: "Progress") -> "list[Subject]":
    from edgegeo.bench.cells import Subject
    from edgegeo.bundle import open_bundle
    from edgegeo.home import default_bundle
    from edgegeo.models.hub import checkpoint_name, find_checkpoint, is_repository
    from edgegeo.schema import to_plain

    checkpoint = models.checkpoint
    recipes = _recipes(models)
    hush_libraries(online=checkpoint is not None and is_repository(checkpoint))
    source = find_checkpoint(checkpoint) if checkpoint else None
    named = [checkpoint_name(source)] if source else []
    subjects = []
    for (label, recipe), method in product(recipes.items(), models.method or (None,)):
        # Of several methods each has its own bundle; the checkpoint's own choice lies where export puts it.
        wanted = replace(recipe, name=f"{recipe.name}-{method}") if method else recipe
        target = default_bundle(wanted.name, *named)
        if not target.is_dir():
            _export(source, wanted, target, method, progress)
        bundle = open_bundle(target)
        if source is not None and not _made_from(bundle, source):
            raise BundleError(
                f"{target} was made from other weights than those in {source}; export it again, or name bundles"
            )
        subjects.append(Subject(f"{label} {method or ''}".rstrip(), bundle, to_plain(recipe), checkpoint, method))
    return subjects


def _export(source: Path | None, recipe: "Recipe", target: Path, method: str | None, progress: "Progress") -> None:
    note(f"no bundle at {target}: exporting it")
    try:
        from edgegeo.export import export

        export(source, recipe, target, method=method, places=0, progress=progress)
    except ImportError as error:
        raise BundleError(
            f"no bundle at {target}, and this machine can't make it ({error.name} is not installed); "
            "pip install 'edgegeo[export]', or name bundles made elsewhere: edgegeo bench BUNDLE..."
        ) from None


def _made_from(bundle: "Bundle", source: Path) -> bool:
    """Whether the files that the bundle was made from lie in a checkpoint folder as they were then."""
    from edgegeo.bundle import sha256_of

    def unchanged(folder: Path, files: dict[str, str]) -> bool:
        # A folder of ONNX graphs keeps them beside its other files or one step below.
        beside = {name: [f for f in (folder / name, folder / "onnx" / name) if f.is_file()] for name in files}
        return all(any(sha256_of(file) == files[name] for file in found) for name, found in beside.items())

    facts = bundle.manifest.source
    adapters = [one for one in facts.get("adapters", {}).values() if one]
    return unchanged(source, facts.get("files", {})) and all(
        unchanged(source / "adapters" / one["name"], one["files"]) for one in adapters
    )
