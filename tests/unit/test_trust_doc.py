"""docs/trust.md is one page whose every line names a test that exists; what the READMEs and docs/ point at is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "trust.md"
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "README.tr.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
MAX_LINES, MAX_COLUMNS = 130, 120
SECTIONS = (
    "The downloader", "Redis", "The verifier", "The miner", "The origin", "An IPFS gateway", "The proxy",
    "The operator", "`init`", "The chain's nodes",
)  # fmt: skip
KINDS = ("- **can**", "- **cannot**")
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
WITHOUT_A_TEST = "(no test: "
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Code spans that begin where a folder of the repository does; `…`, `<…>` and `{…}` stand for what is not there yet.
TOPS = ("docs", "genesis", "launcher", "locks", "proto", "services", "shared", "tests", "benchmarks")
PATH = re.compile(rf"`((?:{'|'.join(TOPS)})/[^`\s]*)`")
TEST_FILE = re.compile(r"`(test_\w+\.py)`")


def sections(text: str) -> dict[str, list[str]]:
    """Return the items of each section by its title, each on one line."""
    found = {}
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        found[title] = [" ".join(item.split()) for item in re.split(r"(?m)^(?=- )", body)[1:]]
    return found


def section(start: str) -> list[str]:
    titles = sections(PAGE.read_text())
    (title,) = [title for title in titles if re.match(re.escape(start) + r"(\W|$)", title)]
    return titles[title]


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the names of the test functions in a file of the repository; none where there is no such file."""
    file = REPOSITORY / path
    if not file.is_file():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def test_the_page_is_one_page() -> None:
    lines = PAGE.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    assert [number for number, line in enumerate(lines, start=1) if len(line) > MAX_COLUMNS] == []


@pytest.mark.parametrize("start", SECTIONS)
def test_a_section_says_what_its_part_can_and_cannot_do(start: str) -> None:
    items = section(start)
    kinds = [next((kind for kind in KINDS if re.match(re.escape(kind) + r"[ ,]", item)), item) for item in items]
    assert set(kinds) == set(KINDS)


def test_the_sections_are_those_of_the_threat_model_and_where_it_ends() -> None:
    titles = list(sections(PAGE.read_text()))
    assert len(titles) == len(SECTIONS) + 1
    assert all(title.startswith(start) for title, start in zip(titles, SECTIONS, strict=False))
    assert titles[-1] == "Where it ends"


@pytest.mark.parametrize("start", SECTIONS)
def test_every_item_names_a_test_that_exists(start: str) -> None:
    for item in section(start):
        named = NAMED_TEST.findall(item)
        assert named or WITHOUT_A_TEST in item, item
        assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == [], item
        assert item.count("`tests/") == len(named), f"a test is not named in full: {item}"


def test_at_most_one_item_has_no_test_and_it_says_why() -> None:
    without = re.findall(r"\(no test: ([^)]*)\)", PAGE.read_text())
    assert len(without) <= 1
    assert all(len(why.split()) > 3 for why in without)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_what_a_document_points_at_is_there(document: Path) -> None:
    text = document.read_text()
    links = [target.partition("#")[0] for target in LINK.findall(text) if "://" not in target]
    assert [target for target in links if target and not (document.parent / target).exists()] == []
    assert [path for path in paths_named(text) if not is_there(path)] == []


def paths_named(text: str) -> list[str]:
    """Return paths of the repository in code spans, and files of tests that stand there by their name alone."""
    named = [path.partition("::")[0] for path in PATH.findall(text) if not re.search(r"[<{…]", path)]
    return named + [f"tests/**/{name}" for name in TEST_FILE.findall(text)]


def is_there(path: str) -> bool:
    """Tell whether a path, in which `*` stands for any name, is that of something in the repository."""
    return any(True for _ in REPOSITORY.glob(path.rstrip("/")))


def test_what_is_not_there_is_found_out() -> None:
    text = (
        "`tests/no/such.py`, `test_none_such.py`, `docs/trust.md`, `tests/unit/test_*.py`, `verified/<sha256>/…`, `x/y`"
    )
    assert [path for path in paths_named(text) if not is_there(path)] == [
        "tests/no/such.py",
        "tests/**/test_none_such.py",
    ]
