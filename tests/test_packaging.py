import re

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
