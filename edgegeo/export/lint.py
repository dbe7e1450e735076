"""The linter of the trt dialect: what TensorRT would refuse or run slowly, by rule and node, before there is a GPU.

TensorRT-RTX compiles on any machine but takes more than TensorRT on a Jetson does (scales of 0, blocks of int8,
a scale a channel for activations), so compiling is no proof; these rules are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegeo.errors import BundleError, InputError, VerificationError, one_line
from edgegeo.export.lint_graph import LintGraph
from edgegeo.export.lint_rules import EIGHT_BIT_FLOAT, MODERN, PORTABLE, RULES, TYPES, Subset

SUBSETS = {
    "tensorrt": Subset("TensorRT 10.3", 20, PORTABLE, TYPES),
    "tensorrt-modern": Subset("TensorRT 10.15", 24, MODERN, TYPES | EIGHT_BIT_FLOAT),
}
"""By target, as in a recipe: everything from TensorRT 10.3 on, which is JetPack 6, or from 10.15 on."""
PORTABLE_TARGET = "tensorrt"
SHOWN = 3
"""Violations that an error quotes."""


@dataclass(frozen=True)
class Violation:
    """A rule that a node breaks."""

    rule: str
    node: str
    """Name of the node or tensor."""
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.node}: {self.found}; {self.remedy}"


def subset_of(target: str) -> Subset:
    """What may stand in graphs of a target; InputError for one that TensorRT has no part in."""
    if target not in SUBSETS:
        raise InputError(f"the linter knows no target '{target}'; use {' or '.join(SUBSETS)}")
    return SUBSETS[target]


def lint_model(model: Any, target: str = PORTABLE_TARGET, folder: Path | None = None) -> tuple[Violation, ...]:
    """Violations of a ModelProto, by rule; folder: where its external data lies. InputError: an unknown target."""
    against = subset_of(target)
    graph = LintGraph(model, folder)
    found = [
        Violation(rule.name, node, fault, rule.remedy) for rule in RULES for node, fault in rule.check(graph, against)
    ]
    return tuple(dict.fromkeys(found))


def lint_file(file: Path, target: str = PORTABLE_TARGET) -> tuple[Violation, ...]:
    """`lint_model` of a file, whose large weights are not read; BundleError for one that is no ONNX graph."""
    import onnx

    try:
        model = onnx.load(file, load_external_data=False)
        with _unknown_operators():
            onnx.checker.check_model(str(file))
    except OSError as error:
        raise BundleError(f"{file} can't be read ({error.strerror or error}); name an .onnx file or a bundle") from None
    except Exception as error:  # protobuf's decoder and onnx's checker raise their own classes
        raise BundleError(f"{file} is no valid ONNX graph ({one_line(error)}); export it again") from None
    return lint_model(model, target, file.parent)


@contextmanager
def _unknown_operators() -> Iterator[None]:
    """Let pass what onnx says of operators that it does not know: the rules name each of them."""
    import onnx

    try:
        yield
    except onnx.checker.ValidationError as error:
        if "No Op registered" not in str(error):
            raise


def require(file: Path, target: str = PORTABLE_TARGET) -> None:
    """VerificationError naming rules and nodes that a written graph breaks."""
    found = lint_file(file, target)
    if found:
        more = f", and {len(found) - SHOWN} more (edgegeo lint)" if len(found) > SHOWN else ""
        raise VerificationError(
            f"{file.name} breaks rules of TensorRT: {'; '.join(map(str, found[:SHOWN]))}{more}. Nothing was written"
        )
