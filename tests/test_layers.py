"""The order of the packages, and the sizes of functions, read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ["train_moco", "train_dense", "eval_face", "eval_animal", "vis_face", "vis_animal"]
SCRIPTS += ["eval_matching", "predict"]
# What each part of the repository may import, itself aside; the scripts are one layer.
ALLOWED: dict[str, set[str]] = {"utils": set()}
ALLOWED["models"] = ALLOWED["data_loader"] = ALLOWED["datasets"] = {"utils"}
ALLOWED["engine"] = {"utils", "models", "data_loader"}
ALLOWED |= {script: {*ALLOWED["engine"], "engine", *SCRIPTS} for script in SCRIPTS}
ALLOWED["reproduce"] = ALLOWED["benchmarks"] = {*ALLOWED["engine"], "engine", "datasets", *SCRIPTS}
SOURCES = [
    path
    for part in ALLOWED
    for path in (
        [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").exists() else (ROOT / part).rglob("*.py")
    )
]


def nodes(path: Path) -> list[ast.AST]:
    """Return everything in a module's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


def imported_parts(path: Path) -> set[str]:
    """Return the parts of this repository that a module imports, also within functions."""
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names.add(str(node.module))
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[0] for name in names} & {*ALLOWED, "tests"}


@pytest.mark.parametrize("part", ALLOWED)
def test_packages_import_only_those_below(part):
    paths = [
        path for path in SOURCES if path.relative_to(ROOT).parts[0].removesuffix(".py") == part
    ]
    assert paths
    above = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in paths
        if (found := imported_parts(path) - ALLOWED[part] - {part})
    }
    assert above == {}


# Each room of engine/ may import those before it; the two last ones only `run`.
ROOMS = ["run", "features", "points", "readouts", "pages", "prediction", "pretraining"]
ROOMS += ["reproduction"]


def test_rooms_of_the_engine_import_only_those_before_them():
    rooms = {path.name for path in (ROOT / "engine").iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ROOMS)
    for room in ROOMS:
        allowed = {"run"} if room in ROOMS[-2:] else set(ROOMS[: ROOMS.index(room) + 1])
        for path in (ROOT / "engine" / room).rglob("*.py"):
            names = {
                str(node.module).split(".")[1]
                for node in nodes(path)
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("engine.")
            }
            assert names <= {*allowed, room}, path


def test_preparing_data_doesnt_import_torch():
    code = "import datasets.synthetic, datasets.download, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_options_stop_at_main():
    """Only the parser's own helpers, the settings and the comparison with checkpoints take it."""
    takers = ("utils/arguments.py", "engine/run/settings.py", "engine/run/resumption.py")
    takers += ("engine/points/defaults.py",)
    takes = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] in ("utils", "models", "data_loader", "engine")
        and str(path.relative_to(ROOT)) not in takers
        for node in nodes(path)
        if isinstance(node, ast.arg)
        and node.annotation is not None
        and "Namespace" in ast.unparse(node.annotation)
    ]
    assert takes == []


def test_no_option_is_assigned_to():
    assigned = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and ast.unparse(node.value) == "args"
    ]
    assert assigned == []


def test_functions_fit_on_a_screen():
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": lines
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno is not None
        # A script's main states all of its settings.
        and (lines := node.end_lineno - node.lineno + 1) > (100 if node.name == "main" else 80)
    }
    assert long == {}
