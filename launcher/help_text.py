"""How the help of a command ends: with examples."""

from __future__ import annotations

from rich.markup import escape


def examples(*lines: str) -> str:
    """Return the end of a command's help, an example a line."""
    title = "Examples:" if len(lines) > 1 else "Example:"
    return "\n".join([title, *(f"  {escape(line)}" for line in lines)])
