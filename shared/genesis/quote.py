"""How a found value is shown: one line, ASCII only, shortened, so that no input writes to a person's terminal."""

from __future__ import annotations

_SHOWN = 72


def quote(value: object) -> str:
    """Return a safe, short representation of any JSON value."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case int() if abs(value) >= 10**_SHOWN:
            return f"a number of more than {_SHOWN} digits"
        case dict() | list():
            return "an object" if isinstance(value, dict) else "a list"
        case str():
            return _quote_text(value)
        case _:
            return ascii(value)


def _quote_text(text: str) -> str:
    shown = ascii(text[: _SHOWN + 1])
    if len(text) <= _SHOWN and len(shown) <= _SHOWN + 2:
        return shown
    return f"{shown[:_SHOWN]}... ({len(text)} characters)"
