"""A graph to a plan: parsed strongly typed, so that the types and the Q/DQ in the graph are all that decides."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegeo.errors import DeviceError, EngineError, one_line
from edgegeo.runtime.engines.library import Library
from edgegeo.runtime.engines.shapes import Profile

MB = 2**20
Dims = tuple[int | str, ...]


@dataclass(frozen=True)
class Settings:
    """How the builder works; what changes the plan is part of its key."""

    workspace_mb: int = 0
    """Most device memory that a kernel may use beside its tensors; 0: all there is."""
    level: int | None = None
    """Effort of the search for kernels, 0 to 5; None: TensorRT's own choice."""

    def __post_init__(self) -> None:
        if self.workspace_mb < 0:
            raise ValueError(f"workspace_mb must not be negative, as {self.workspace_mb} is")
        if self.level is not None and not 0 <= self.level <= 5:
            raise ValueError(f"level must be between 0 and 5, not {self.level}")

    @property
    def flags(self) -> str:
        """For the key."""
        return json.dumps({"strongly_typed": True, "workspace_mb": self.workspace_mb, "level": self.level})


@dataclass(frozen=True)
class Built:
    """A plan and the inputs it was built for."""

    plan: Any
    """A buffer of bytes, owned by the library."""
    dims: dict[str, Dims]
    """Input name -> its axes: sizes, or names of free ones."""


def build_plan(
    library: Library, graph: Path, profiles: Sequence[Profile], settings: Settings, timings: Path | None = None
) -> Built:
    """Compile a graph, with its weights beside it, for some ranges of shapes.

    timings: file of the timing cache, read and written: kernels measured once are not measured again. EngineError
    names the node that is refused; DeviceError where there is no device to build on.
    """
    library.take_errors()
    api = library.api
    builder = _builder(library)
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(library, network, graph)
    config = builder.create_builder_config()
    if settings.workspace_mb:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, settings.workspace_mb * MB)
    if settings.level is not None:
        config.builder_optimization_level = settings.level
    dims = _inputs(network)
    for profile in profiles:
        _add_profile(library, builder, config, dims, profile, graph)
    # TensorRT-RTX measures nothing while it builds: its timing cache is a stub that warns.
    cache = None if timings is None or library.portable else _load_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = library.take_errors() or "without a word"
        raise EngineError(
            f"{library.name} can't compile {graph.name} ({said}); try a smaller --batch or --length, or report it"
        )
    if cache is not None and timings is not None:
        _save_timings(config, timings)
    return Built(memoryview(plan), dims)


def _builder(library: Library) -> Any:
    try:
        builder = library.api.Builder(library.logger)
    except Exception as error:  # pybind11 raises TypeError where the constructor returned nothing
        said = library.take_errors() or one_line(error)
        raise DeviceError(f"{library.name} can't build here ({said}); it needs an NVIDIA GPU and its driver") from None
    return builder


def _parse(library: Library, network: Any, graph: Path) -> None:
    parser = library.api.OnnxParser(network, library.logger)
    # By its path, so that the parser finds the weights beside the graph.
    if parser.parse_from_file(str(graph)):
        return
    said = []
    for number in range(min(parser.num_errors, 3)):
        error = parser.get_error(number)
        where = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        said.append(where + " ".join(str(error.desc()).split())[:200])
    library.take_errors()
    raise EngineError(
        f"{library.name} refuses {graph.name} ({'; '.join(said) or 'it gives no reason'}); "
        "see: edgegeo lint, and export with --target tensorrt"
    )


def _inputs(network: Any) -> dict[str, Dims]:
    """Every input's axes, the free ones by the names that the graph gives them."""
    found: dict[str, Dims] = {}
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        axes = enumerate(tensor.shape)
        found[str(tensor.name)] = tuple(
            str(tensor.get_dimension_name(place)) if size < 0 else int(size) for place, size in axes
        )
    return found


def _add_profile(
    library: Library, builder: Any, config: Any, dims: dict[str, Dims], profile: Profile, graph: Path
) -> None:
    made = builder.create_optimization_profile()
    for name, axes in dims.items():
        free = [axis for axis in axes if isinstance(axis, str)]
        if not free:
            continue
        unknown = [axis for axis in free if axis not in profile]
        if unknown:
            raise EngineError(f"{graph.name}: its input {name} has free axes without a range ({', '.join(unknown)})")
        ends = [
            tuple(axis if isinstance(axis, int) else int(getattr(profile[axis], end)) for axis in axes)
            for end in ("least", "usual", "most")
        ]
        made.set_shape(name, *ends)
    if config.add_optimization_profile(made) < 0:
        raise EngineError(f"{library.name} refuses a range of shapes of {graph.name} ({library.take_errors()})")


def _load_timings(config: Any, file: Path) -> Any:
    try:
        known = file.read_bytes()
    except OSError:
        known = b""
    # One of another version or chip is refused; kernels are then measured again.
    cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache


def _save_timings(config: Any, file: Path) -> None:
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_bytes(memoryview(config.get_timing_cache().serialize()))
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)  # it only saves time
