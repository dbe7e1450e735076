"""edgegeo calibrate: what the matrices of a model multiply, recorded on samples, for exports that need to know."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegeo.cli.files import check_suffix, check_target, write_whole
from edgegeo.cli.flags import JsonFlag, choices, flag, named_values, token_budget
from edgegeo.cli.output import emit_json, hush_libraries, note, progress_bar, say, table
from edgegeo.errors import InputError

if TYPE_CHECKING:
    from edgegeo.calibration import Calibration, SampleManifest
    from edgegeo.calibration.samples import Sample
    from edgegeo.progress import Progress
    from edgegeo.recipe import TokenBudget

SubjectArgument = Annotated[
    str | None,
    typer.Argument(
        help="Checkpoint (folder, or ORG/NAME[@REVISION]) or fp32 bundle.",
        show_default="the packaged model",
        envvar="EDGEGEO_CALIBRATE_SUBJECT",
    ),
]
OutputFlag = Annotated[
    Path | None,
    flag("--output", "-o", verb="calibrate", help="File to write.", show_default="calibration/ in the data home"),
]
AdapterFlag = Annotated[
    list[str] | None, flag("--adapter", verb="calibrate", help="ROLE=FOLDER, as the export will have it.")
]
MethodFlag = Annotated[str | None, flag("--method", verb="calibrate", help="lora or slq, as the export will have it.")]
SamplesFlag = Annotated[int, flag("--samples", verb="calibrate", help="Places, photos or rows to run.", min=1)]
PhotosFlag = Annotated[
    Path | None, flag("--photos", verb="calibrate", help="Folder of photos to run.", show_default="planet's places")
]
DataFlag = Annotated[str | None, flag("--data", verb="calibrate", help="A data set (edgegeo data list), or auto.")]
DataRootFlag = Annotated[Path | None, flag("--data-root", verb="calibrate", help="Folder of the data set.")]
SplitFlag = Annotated[str | None, flag("--split", verb="calibrate", help="Split of the data set.")]
OptionFlag = Annotated[list[str] | None, flag("--option", verb="calibrate", help="A loader's option, NAME=VALUE.")]
RandomFlag = Annotated[
    bool, flag("--random", verb="calibrate", help="Noise instead of samples; bundles made with it say so.")
]
ManifestFlag = Annotated[
    Path | None, flag("--manifest", verb="calibrate", help="Sample manifest that the samples must equal, to the byte.")
]
SaveFlag = Annotated[Path | None, flag("--save-manifest", verb="calibrate", help="Write the sample manifest here.")]
LicenceFlag = Annotated[
    str | None, flag("--licence", verb="calibrate", help="Of the samples.", show_default="planet: Apache-2.0")
]
SeedFlag = Annotated[int, flag("--seed", verb="calibrate", help="Draws photos, rows and noise.", min=0)]
MomentsFlag = Annotated[
    str, flag("--moments", verb="calibrate", help="Components GPTQ may round (trunk, head, text, vision), or none.")
]


def command(
    subject: SubjectArgument = None,
    output: OutputFlag = None,
    adapter: AdapterFlag = None,
    method: MethodFlag = None,
    image_size: Annotated[int | None, flag("--image-size", verb="calibrate", help="As the export has it.")] = None,
    tiles: Annotated[int | None, flag("--tiles", verb="calibrate", help="As the export has it.")] = None,
    max_pixels: Annotated[int | None, flag("--max-pixels", verb="calibrate", help="As the export has it.")] = None,
    samples: SamplesFlag = 64,
    photos: PhotosFlag = None,
    data: DataFlag = None,
    data_root: DataRootFlag = None,
    split: SplitFlag = None,
    option: OptionFlag = None,
    random: RandomFlag = False,
    manifest: ManifestFlag = None,
    save_manifest: SaveFlag = None,
    licence: LicenceFlag = None,
    seed: SeedFlag = 0,
    moments: MomentsFlag = "trunk,head,text",
    as_json: JsonFlag = False,
) -> None:
    """Run a model's float graphs over samples and record every layer's inputs: ranges by four methods, and moments.

    A killed run goes on where it stopped. Use the file with: edgegeo export --calibration FILE --recipe ...
    """
    kinds = () if moments == "none" else choices(moments, ("trunk", "head", "text", "vision"), "--moments")
    if sum((photos is not None, data is not None, random)) > 1:
        raise InputError("name one of --photos, --data and --random")
    _refuse({"--data-root": data_root, "--split": split, "--option": option}, data is None, "--data NAME")
    _refuse({"--licence": licence}, data is None and photos is None, "--photos or --data")
    if output is not None:
        check_suffix(output, (".json",))  # arrays and state stand beside it, by other suffixes
    for file in (output, save_manifest):
        check_target(file)
    from edgegeo.calibration import check_samples, read_manifest, write_manifest

    with progress_bar() as progress:
        if random:
            found = _noise(samples, seed)
        elif photos is not None:
            found = _photos(photos, samples, seed, licence)
        elif data is not None:
            found = _rows(data, data_root, split, named_values(option or []), samples, seed, licence)
        else:
            found = None
        run = _open(subject, adapter or [], method, token_budget(image_size, tiles, max_pixels))
        drawn, told = found or run.planet(samples, progress)
        if manifest is not None:
            check_samples(read_manifest(manifest), drawn)
        if save_manifest is not None:
            write_whole(save_manifest, partial(write_manifest, told))
            note(f"wrote {save_manifest}")
        out = output or _home(run.name)
        with _writing(out):
            written = run.record(drawn, told, out, kinds, random, progress)
    emit_json(_document(written)) if as_json else _print(written)


def _refuse(given: dict[str, Any], alone: bool, partner: str) -> None:
    """Refuse a flag that would be ignored where it stands alone."""
    for name, value in given.items():
        if alone and value:
            raise InputError(f"{name} only works with {partner}")


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"can't write beside {out} ({error.strerror or error}); free some space and run the same command again, "
            "which goes on where it stopped, or choose another place with -o"
        ) from None


def _open(subject: str | None, adapters: list[str], method: str | None, budget: "TokenBudget") -> "_Subject":
    """The bundle or checkpoint that a name stands for; a bundle has its own adapters and picture settings."""
    from edgegeo.bundle import MANIFEST_NAME
    from edgegeo.home import find_bundle

    hush_libraries(online=False)
    place = find_bundle(subject) if subject is not None else None
    if place is None or not (place / MANIFEST_NAME).is_file():
        return _Checkpoint(subject, adapters, method, budget)
    if adapters or method or budget.label:
        raise InputError(f"{place} is a bundle, which holds its adapters and picture settings; leave those flags out")
    return _Bundled(place)


class _Checkpoint:
    """A checkpoint with the adapters of an export."""

    def __init__(self, subject: str | None, adapters: list[str], method: str | None, budget: "TokenBudget") -> None:
        from edgegeo.cli.export import adapters_of
        from edgegeo.export.components import layout
        from edgegeo.export.source import open_source
        from edgegeo.models.hub import find_checkpoint, is_repository

        hush_libraries(online=subject is not None and is_repository(subject))
        path = find_checkpoint(subject) if subject else None
        self.source = open_source(path, adapters_of(adapters), method, budget)
        self.plan = layout(self.source)
        self.name = self.source.name

    def planet(self, count: int, progress: "Progress") -> "tuple[tuple[Sample, ...], SampleManifest]":
        """Validation places of the checkpoint's planet whose descriptions it can read."""
        from edgegeo.calibration import readable

        settings = self.source.checkpoint.settings
        return _places(count, settings.planet_seed, progress, lambda s: readable(s, self.source.checkpoint.reads))

    def record(
        self,
        samples: Any,
        told: "SampleManifest",
        out: Path,
        moments: tuple[str, ...],
        random: bool,
        progress: "Progress",
    ) -> "Calibration":
        """Its own float graphs, built for the while."""
        from edgegeo.export.calibrating import Chosen, record

        return record(self.source, self.plan, Chosen(None, samples, told), out, moments, random, progress)


class _Bundled:
    """An fp32 bundle."""

    def __init__(self, path: Path) -> None:
        from edgegeo.bundle import open_bundle
        from edgegeo.export.exposed import BundleGraphs

        self.bundle = open_bundle(path)
        self.graphs = BundleGraphs(self.bundle)
        self.name = self.bundle.manifest.name

    def planet(self, count: int, progress: "Progress") -> "tuple[tuple[Sample, ...], SampleManifest]":
        """Validation places of the planet that its checkpoint knows."""
        seed = self.bundle.manifest.source.get("planet_seed")
        return _places(count, seed if isinstance(seed, int) else None, progress, lambda samples: samples)

    def record(
        self,
        samples: Any,
        told: "SampleManifest",
        out: Path,
        moments: tuple[str, ...],
        random: bool,
        progress: "Progress",
    ) -> "Calibration":
        """Its graphs with further outputs; answers are its own."""
        from edgegeo.export.exposed import calibrate_bundle

        return calibrate_bundle(self.graphs, samples, told, out, moments, random, progress)


_Subject = _Checkpoint | _Bundled


def _places(count: int, seed: int | None, progress: "Progress", kept: Any) -> "tuple[Any, SampleManifest]":
    from edgegeo.calibration import describe_samples
    from edgegeo.evaluate import planet_scenes
    from edgegeo.planet import DEFAULT_SEED

    seed = DEFAULT_SEED if seed is None else seed
    samples = kept(planet_scenes(count, "validation", seed, progress))
    return samples, describe_samples(samples, "validation", seed)


def _photos(folder: Path, count: int, seed: int, licence: str | None) -> "tuple[Any, SampleManifest]":
    from edgegeo.calibration import describe_samples
    from edgegeo.calibration.sources import photo_samples

    samples = photo_samples(folder.expanduser(), count, seed)
    return samples, describe_samples(samples, "all", seed, folder.name, licence or "not stated")


def _rows(
    name: str, root: Path | None, split: str | None, options: dict[str, Any], count: int, seed: int, licence: str | None
) -> "tuple[Any, SampleManifest]":
    from edgegeo.calibration import describe_samples
    from edgegeo.calibration.sources import dataset_samples
    from edgegeo.datasets import open_dataset

    loaded = open_dataset(name, root, split, **options)
    samples = dataset_samples(loaded, count, seed)
    return samples, describe_samples(samples, split or "default", seed, loaded.report.dataset, licence or "not stated")


def _noise(count: int, seed: int) -> "tuple[Any, SampleManifest]":
    from edgegeo.calibration import describe_samples
    from edgegeo.calibration.sources import random_samples

    samples = random_samples(count, seed)
    return samples, describe_samples(samples, "none", seed, "random", "none")


def _home(name: str) -> Path:
    from edgegeo.home import data_home

    return data_home() / "calibration" / f"{name}.json"


def _document(written: "Calibration") -> dict[str, Any]:
    from edgegeo.schema import to_plain

    return {"path": str(written.path), "sha256": written.sha256, **to_plain(written.record)}


def _print(written: "Calibration") -> None:
    record, samples = written.record, written.record.samples
    rows = [
        (name, f"{len(layers):,}", f"{max((one.rows for one in layers.values()), default=0):,}")
        for name, layers in record.components.items()
    ]
    table(("component", "tensors", "rows seen"), rows)
    source = f"{samples.count:,} samples of {samples.source} ({samples.split}, licence: {samples.licence})"
    say(f"{source}; use it with: edgegeo export --calibration {written.path} --recipe ...")
    if record.random:
        say("these samples are noise: what is exported with this file says so, and is for trying tools only")
