"""Findings as one screen, and as a document for a support ticket. All text goes through the blanker. Pure.

What is fine is named and not explained; what is skipped says why; what is wrong has its next step.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from itertools import groupby

from rich.text import Text

from launcher.display import printable
from launcher.doctor.blanking import Blanker
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Finding, Status, exit_code
from shared.settings import KNOWN_NAMES, SECRET_NAMES
from shared.version import __version__

DOCUMENT_VERSION = 1
_PACKAGES = ("llama-cpp-python", "redis", "requests", "rq", "typer", "nvidia-ml-py", "torch")
_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red", Status.SKIPPED: "dim"}
_WORDS = {Status.OK: "ok", Status.WARNING: "warning", Status.FAILED: "FAILED", Status.SKIPPED: "skipped"}
_INDENT = " " * 12


def render(findings: Sequence[Finding], blanker: Blanker, *, verbose: bool = False) -> Text:
    """Return the screen: a heading a group, what is wrong first."""
    screen = Text()
    for group, found in groupby(findings, key=lambda each: each.group):
        screen.append(f"{group}\n", style="bold")
        for line in _group(list(found), blanker, verbose=verbose):
            screen.append_text(line)
    screen.append_text(_summary(findings))
    return screen


def document(findings: Sequence[Finding], subject: Subject, blanker: Blanker) -> dict[str, object]:
    """Return what `--json` prints; its keys are a contract."""
    content: dict[str, object] = {
        "version": DOCUMENT_VERSION,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "r3mes": __version__,
        "platform": _platform(),
        "packages": _packages(),
        "offline": subject.offline,
        "deep": subject.deep,
        "store": {"root": str(subject.layout.root), "kind": subject.kind},
        "settings": _settings(subject),
        "checks": [_entry(each) for each in findings],
        "counts": {status.value: _count(findings, status) for status in Status},
        "exit_code": int(exit_code(findings)),
    }
    blanked = blanker.data(content)
    return blanked if isinstance(blanked, dict) else {}


def _group(found: Sequence[Finding], blanker: Blanker, *, verbose: bool) -> Iterator[Text]:
    for status in (Status.FAILED, Status.WARNING):
        for each in found:
            if each.verdict.status is status:
                yield _line(each, blanker)
    fine = [each for each in found if each.verdict.status is Status.OK]
    if verbose:
        yield from (_line(each, blanker) for each in fine)
    elif fine:
        names = ", ".join(dict.fromkeys(each.check for each in fine))
        yield _styled(Status.OK, names)
    skips = [each for each in found if each.verdict.status is Status.SKIPPED]
    for why, same in groupby(skips, key=lambda each: each.verdict.summary):
        names = ", ".join(dict.fromkeys(each.check for each in same))
        yield _styled(Status.SKIPPED, f"{names}: {_clean(why, blanker)}")


def _line(finding: Finding, blanker: Blanker) -> Text:
    verdict = finding.verdict
    name = finding.check if verdict.about in {"", finding.check} else f"{finding.check} ({verdict.about})"
    summary = verdict.summary.strip().replace("\n", f"\n{_INDENT}")
    line = _styled(verdict.status, _clean(f"{name}: {summary}", blanker))
    if verdict.next_step and verdict.status in {Status.FAILED, Status.WARNING}:
        line.append(f"{_INDENT}next: {_clean(verdict.next_step, blanker)}\n")
    return line


def _styled(status: Status, rest: str) -> Text:
    line = Text("  ")
    line.append(f"{_WORDS[status]:<8}", style=_STYLES[status])
    line.append(f"  {rest}\n", style="dim" if status is Status.SKIPPED else "")
    return line


def _summary(findings: Sequence[Finding]) -> Text:
    counts = [
        (status, _count(findings, status)) for status in (Status.FAILED, Status.WARNING, Status.OK, Status.SKIPPED)
    ]
    said = ", ".join(f"{count} {status.value}" for status, count in counts if count)
    code = exit_code(findings)
    return Text(f"{said}; exit code {int(code)}\n" if code else f"{said}\n")


def _count(findings: Sequence[Finding], status: Status) -> int:
    return sum(each.verdict.status is status for each in findings)


def _clean(text: str, blanker: Blanker) -> str:
    return printable(blanker.text(text))


def _entry(finding: Finding) -> dict[str, object]:
    verdict = finding.verdict
    return {
        "group": finding.group,
        "check": finding.check,
        "about": verdict.about,
        "status": verdict.status.value,
        "summary": verdict.summary,
        "next_step": verdict.next_step,
        "exit_code": int(verdict.exit_code),
        "details": dict(verdict.details),
    }


def _platform() -> dict[str, object]:
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "executable": sys.executable,
    }


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _settings(subject: Subject) -> dict[str, str]:
    """What is set, secrets only as being there."""
    shown = {}
    for name in sorted(subject.environ):
        if name in KNOWN_NAMES or name.upper().endswith("_PROXY") or name in {"CUDA_VISIBLE_DEVICES", "DOCKER_HOST"}:
            shown[name] = "(a secret)" if name in SECRET_NAMES else subject.environ[name]
    return shown
