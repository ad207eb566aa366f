import re
import subprocess

import pytest

from tests.recipes import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text()


def listed(key: str) -> set[str]:
    """Return the strings of a list of pyproject.toml (tomllib needs Python 3.11)."""
    found = re.search(rf"^{key} = \[\n(.*?)^\]", PYPROJECT, re.M | re.S)
    assert found is not None
    return set(re.findall(r'"([^"]+)"', found[1]))


def test_both_lists_of_dependencies_say_the_same():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {line for line in lines if line and not line.startswith("#")}
    assert required == listed("dependencies") | listed("test")


def test_all_packages_are_listed():
    tops = ["utils", "models", "data_loader", "engine", "datasets"]
    files = [file for top in tops for file in (ROOT / top).rglob("__init__.py")]
    assert listed("packages") == {".".join(f.parent.relative_to(ROOT).parts) for f in files}


def test_all_files_beside_the_modules_are_packaged():
    """Git knows which files are ours; what is no module has to be listed as a package's data."""
    tops = ["utils", "models", "data_loader", "engine", "datasets"]
    tracked = subprocess.run(
        ["git", "ls-files", *tops], cwd=ROOT, check=False, capture_output=True, text=True
    ).stdout.split()
    if not tracked:
        pytest.skip("not a clone")
    others = {name for name in tracked if not name.endswith(".py")}
    found = re.search(r"^\[tool.setuptools.package-data\]\n(.*?)^\[", PYPROJECT, re.M | re.S)
    assert found is not None
    data = {
        str(path.relative_to(ROOT))
        for top, patterns in re.findall(r"^(\w+) = \[(.*)\]$", found[1], re.M)
        for pattern in re.findall(r'"([^"]+)"', patterns)
        for path in (ROOT / top).glob(pattern)
    }
    assert others == data
