"""The command lines of README.md, README.tr.md, docs/ and the READMEs beside: their `sh` blocks, and what accounts for
each.

A line is cut at `&&` and `|` into commands. Each command has exactly one `Kind`, by the first row of `KINDS` that
matches; a line that none matches has to be taught here. The tests of tests/docs do with each kind what can be done.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BESIDE = ("genesis/README.md", "secrets/README.md", "deploy/swarm/README.md", "deploy/kubernetes/README.md")
PAGES = [
    ROOT / "README.md",
    ROOT / "README.tr.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in _BESIDE),
]
# Commands of `r3mes` that need services; the others work on a store, or on files alone.
_WITH_A_STACK = "status|ask|chat|pull|pause|resume|cancel|retry|doctor|bench"


class Kind(StrEnum):
    """How a command is accounted for."""

    SETTING = "setting"  # a line of `.env`
    MAKE = "make"  # a target: its recipe is looked at, and named what runs it
    ALONE = "alone"  # run for real in a project and home of the test's own
    SERVICE = "service"  # started for real
    STACK = "stack"  # run for real beside services
    COMPOSE = "compose"  # its words are compared with Compose's help and the stack's services
    ELSEWHERE = "elsewhere"  # run by the test that is named
    FILTER = "filter"  # what a pipe leads to
    BY_HAND = "by hand"  # another program's: the reason is named


@dataclass(frozen=True, slots=True)
class Line:
    """One command line: `before` are the exports and settings of its page that come before it."""

    page: str
    number: int
    text: str
    before: tuple[str, ...]

    def __str__(self) -> str:
        """Name its place."""
        return f"{self.page}:{self.number}: {self.text}"

    @property
    def commands(self) -> list[str]:
        """Its commands, as they stand there, without the `&` of the background."""
        return [part.strip().removesuffix("&").strip() for part in _cut(self.text)]


TARGETS = {  # what runs a target whose recipe cannot be run inside a test
    "demo": "tests/integration/test_chain.py",
    "test": ".ci/run",
    "up": "tests/e2e/conftest.py",
    "install": "tests/unit/test_install.py",
}
ELSEWHERE = {
    r"(\.venv/bin/)?r3mes demo( --tamper)?": "tests/integration/test_chain.py",
    r"minisign -S .*": "tests/integration/test_acceptance_signature.py",
    r"deploy/certificates \S+": "tests/e2e/test_joined.py",
    r"ssh gpu2 .*": "tests/e2e/test_joined.py",
}
BY_HAND = {
    r"git (pull|checkout VERSION)": "Git's own",
    r"docker (run|load|volume) .*": "the engine's own, beside the stack",
    r"docker (node|secret|service|stack) .*": "needs a Swarm",
    r"kubectl .*": "needs a cluster; tests/unit/test_kubernetes.py checks what it applies",
    r"rm -r credentials": "removes what a container of the lines before has made",
    r"openssl rand -hex 24 >api-key": "beside a cluster; a line of the same program is run",
    r"(python3|python3\.11) -m pip (download|install) .*": "asks a package index",
    r"PYTHONPATH=/tmp/atheris .*": "needs atheris, which is no dependency of this project",
}
_R3MES = r"(R3MES_\w+=\S+ )*(\.venv/bin/)?r3mes"
KINDS: tuple[tuple[Kind, str], ...] = (
    (Kind.SETTING, r"[A-Z][A-Z0-9_]*=\S*"),
    (Kind.MAKE, r"([A-Z_]+=\S+ )*make( .*)?"),
    *((Kind.ELSEWHERE, pattern) for pattern in ELSEWHERE),
    *((Kind.BY_HAND, pattern) for pattern in BY_HAND),
    (Kind.COMPOSE, r"docker compose .*"),
    (Kind.FILTER, r"(grep|sort|tee|xargs) .*"),
    (Kind.SERVICE, r"(\.venv/bin/)?python -m services\.\w+"),
    (Kind.STACK, rf"{_R3MES} ({_WITH_A_STACK})\b.*"),
    (Kind.STACK, r"curl http://127\.0\.0\.1:8000/.*"),
    (Kind.ALONE, rf"{_R3MES} .*"),
    (Kind.ALONE, r"export \w+=.*"),
    (Kind.ALONE, r'eval "\$\(r3mes .*'),
    (Kind.ALONE, r"(sha256sum|cp|mkdir|openssl) .*"),
)


def kind_of(command: str, line: Line) -> Kind | None:
    """Return what accounts for a command, None where nobody has taught it; a store of another place needs no stack."""
    kind = next((kind for kind, pattern in KINDS if re.fullmatch(pattern, command, re.DOTALL)), None)
    if kind is Kind.STACK and any(text.startswith("export R3MES_MODELS_DIR=") for text in line.before):
        return Kind.ALONE
    return kind


def lines(page: Path) -> list[Line]:
    """Return the command lines of a page, without comments; what spans several lines is one."""
    name = str(page.relative_to(ROOT))
    found: list[Line] = []
    before: tuple[str, ...] = ()
    for number, text in _whole(page.read_text()):
        found.append(Line(name, number, text, before))
        if re.fullmatch(r"(export )?R3MES_\w+=\S+", text) and "..." not in text:
            before = (*before, text)
    return found


def every_line() -> list[Line]:
    """Return the lines of all pages."""
    return [line for page in PAGES for line in lines(page)]


def of_kind(kind: Kind) -> list[tuple[Line, str]]:
    """Return each command of a kind with its line."""
    return [(line, command) for line in every_line() for command in line.commands if kind_of(command, line) is kind]


def _whole(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number, command line) of the `sh` blocks."""
    inside, pending, begun = False, "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        fence = raw.strip()
        if fence.startswith("```"):
            inside = fence == "```sh"
            continue
        if not inside or not (pending or fence) or (not pending and fence.startswith("#")):
            continue
        begun = begun if pending else number
        pending = f"{pending}\n{fence}" if pending else fence
        if not _is_open(pending):
            yield begun, _without_comment(pending)
            pending = ""


def _is_open(text: str) -> bool:
    if text.endswith("\\"):
        return True
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def _without_comment(text: str) -> str:
    for found in re.finditer(r"\s+#", text):
        if not _is_open(text[: found.start()]):
            return text[: found.start()].rstrip()
    return text


def _cut(text: str) -> Iterator[str]:
    """Cut at `&&` and `|` outside of quotes."""
    begun = 0
    for found in re.finditer(r"&&|\|", text):
        if not _is_open(text[begun : found.start()]):
            yield text[begun : found.start()]
            begun = found.end()
    yield text[begun:]
