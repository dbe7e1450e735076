"""House rules that a machine can check."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import edgegeo

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for d in ("edgegeo", "tests", "benchmarks", "export") for p in (ROOT / d).rglob("*.py"))


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [p for line in listing.stdout.splitlines() if (p := ROOT / line).is_file()]


def test_files_are_short() -> None:
    assert {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400} == {}


def test_functions_are_short_and_nothing_is_global() -> None:
    faults = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 60:
                    faults.append(f"{path.relative_to(ROOT)}:{node.name} has {lines} lines")
            if isinstance(node, ast.Global):
                faults.append(f"{path.relative_to(ROOT)}:{node.lineno} uses global")
    assert faults == []


def test_no_module_is_a_lumber_room() -> None:
    names = {"utils", "util", "common", "base", "helpers", "manager", "misc"}
    assert [str(p) for p in SOURCES if p.stem in names] == []


def test_nothing_tracked_is_large_or_names_this_machine() -> None:
    machine_path = re.compile(r"(?<![\w.])/(work|farm|root|opt/wheels)/")
    faults = []
    for path in tracked():
        if path.stat().st_size > 15 << 20:
            faults.append(f"{path.relative_to(ROOT)} is over 15 MB")
        if path.suffix in {".py", ".md", ".toml", ".sh", ".json", ".txt", ".html", ""} and path.name != "LICENSE":
            text = path.read_text(errors="ignore")
            if path != Path(__file__) and machine_path.search(text):
                faults.append(f"{path.relative_to(ROOT)} names a path of one machine")
    assert faults == []


def test_packaged_checkpoint_is_small() -> None:
    assert sum(p.stat().st_size for p in (ROOT / "edgegeo/pocket").rglob("*") if p.is_file()) < 16_000_000


def test_version_is_in_the_changelog() -> None:
    assert f"## {edgegeo.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_public_names_resolve() -> None:
    for name in edgegeo.__all__:
        assert getattr(edgegeo, name) is not None


def test_file_tree_in_the_readme_is_true() -> None:
    """Each folder of the tree drawn in the README exists, and each folder of the house is drawn."""
    readme = (ROOT / "README.md").read_text()
    tree = readme[readme.index("## The house") :].split("```")[1]
    drawn = set(re.findall(r"^\s*([\w.]+/)(?=\s)", tree, re.MULTILINE))
    rooms = {f"{p.name}/" for p in (ROOT / "edgegeo").iterdir() if p.is_dir() and not p.name.startswith("__")}
    drawers = {f"{p}/" for p in ("edgegeo", "export", "calibration", "runtime", "benchmarks", "tests", "scripts")}
    assert drawn == rooms | drawers
    assert all((ROOT / d).is_dir() for d in drawers)


def test_every_readme_command_exists() -> None:
    """Every `edgegeo VERB` in the README is a verb of the command line."""
    from typer.main import get_command

    from edgegeo.cli.main import build_app

    verbs = set(get_command(build_app()).commands)  # type: ignore[attr-defined]
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    used = set(re.findall(r"^(?:\$ )?edgegeo ([a-z]+)", "\n".join(blocks), re.MULTILINE))
    assert used
    assert used <= verbs
