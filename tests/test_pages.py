"""The pages' links lead somewhere, and their command lines are ones that the scripts accept."""

import importlib
import re
import shlex

import pytest
from torch.distributed.run import get_args_parser

from tests.recipes import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks/README.md"]
SCRIPTS = [
    *("train_moco", "train_dense", "eval_face", "eval_animal", "vis_face", "vis_animal"),
    *("eval_matching", "predict", "reproduce"),
]
# Of the other commands in the pages: pytest (tests/conftest.py), pip and uv, ulimit, sio.
OTHER_FLAGS = {"--fuzz", "--fuzz_seed", "--slow", "--python", "--resolution", "--from", "--to"}
TOPS = ["utils", "models", "data_loader", "engine", "benchmarks"]
ELIDED = {"…", "..."}
PARSERS = {
    f"{name}.py": importlib.import_module(name.replace("/", ".")).build_parser
    for name in [*SCRIPTS, "datasets/download"]
}


def command_lines(text: str) -> list[list[str]]:
    """Return the words of each command of a page's blocks and of its inline code."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```\n.*?^```", "", text, flags=re.M | re.S))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(span.split()) for span in spans]
    lines = [line for line in lines if re.search(r"(^|\s)(python|torchrun) .*\.py", line)]
    # An apostrophe in a comment would open a quotation.
    return [shlex.split(line.split(" #")[0]) for line in lines]


def usage_lines(text: str) -> list[list[str]]:
    """Return the words of each command of a script's docstring, without the remark beside it."""
    commands = re.findall(r"^  (python (?:.*\\\n)*.*)", text, re.M)
    lines = [re.sub(r"(?<=\S) {2,}.*", "", re.sub(r" *\\\n *", " ", c)) for c in commands]
    return [shlex.split(line) for line in lines]


def check(words: list[str]) -> bool:
    """Parse a command as its script does; return whether it is a command of a script."""
    words = words[: words.index("&")] if "&" in words else words
    elided = bool(ELIDED & set(words))
    words = [word for word in words if word not in ELIDED]
    if "torchrun" in words:
        options = get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
        words = ["python", options.training_script, *options.training_script_args]
    script, arguments = words[words.index("python") + 1], words[words.index("python") + 2 :]
    if script not in PARSERS:
        return False
    parser = PARSERS[script]()
    for action in parser._actions:
        action.required &= not elided
    if arguments != ["--help"]:
        parser.parse_args(arguments)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_resolve(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_cited_sections_of_the_specification_exist():
    sections = re.findall(r"^## (\d+)\. ", (ROOT / "docs/specification.md").read_text(), re.M)
    cited = {
        number
        for folder in [".", *TOPS]
        for path in (ROOT / folder).glob("*.py" if folder == "." else "**/*.py")
        for numbers in re.findall(r"\bspec (\d+(?:, \d+)*)\b", path.read_text())
        for number in numbers.split(", ")
    }
    assert len(cited) > 5 and cited <= set(sections)


def test_files_that_the_pages_name_exist():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for path in re.findall(
            r"`((?:utils|models|data_loader|engine|tests)/[\w/.]+)`", page.read_text()
        ):
            assert (ROOT / path).exists(), (page.name, path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_accept_the_command_lines_of_the_pages(page):
    checked = sum(check(words) for words in command_lines(page.read_text()))
    least = {"README.md": 9, "scaling.md": 4, "reproduction.md": 3}
    assert page.parent.name == "benchmarks" or checked >= least.get(page.name, 0)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_accept_the_command_lines_of_their_docstrings(script):
    lines = usage_lines(importlib.import_module(script).__doc__)
    assert lines and all(check(words) for words in lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_of_the_pages_exist(page):
    known = set(OTHER_FLAGS)
    for parser in [get_args_parser(), *(build() for build in PARSERS.values())]:
        known |= {flag for action in parser._actions for flag in action.option_strings}
    known |= {
        flag
        for source in [*ROOT.glob("benchmarks/*.py"), ROOT / "datasets/synthetic.py"]
        for flag in re.findall(r'"(--\w+)"', source.read_text())
    }
    named = {
        flag
        for code in re.findall(r"```.*?```|`[^`]+`", page.read_text(), re.S)
        for flag in re.findall(r"(?<![\w\[])--[a-z][\w-]*", code)
        if "sbatch" not in code.lower()
    }
    assert named <= known
