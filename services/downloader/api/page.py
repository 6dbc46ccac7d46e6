"""The status page: plain, without scripts, refreshed by the browser; everything shown is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from shared.states import ModelState, ModelStatus

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5"><title>R3MES models</title><style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: left; padding: .4rem .8rem .4rem 0 }}
td.n {{ font-variant-numeric: tabular-nums }} code {{ font-size: .8rem; overflow-wrap: anywhere }}
</style></head><body><h1>Models of node {node}</h1>
<table><thead><tr><th>Model</th><th>State</th><th>Bytes</th><th></th></tr></thead><tbody>{rows}</tbody></table>
<p>Genesis <code>{genesis}</code> · Redis {redis} · {free:.1f} GB free ·
<a href="api/v1/status">status as JSON</a> · <a href="metrics">metrics</a></p></body></html>
"""
_ROW = (
    "<tr><td>{name}<br><code>{sha256}</code></td><td>{state}</td>"
    '<td class="n">{received:,} of {expected}</td><td>{message}</td></tr>'
)


def status_page(*, node: str, genesis: str, statuses: Iterable[ModelStatus], is_redis_up: bool, free_bytes: int) -> str:
    """Return the page as HTML."""
    return _PAGE.format(
        node=escape(node),
        genesis=escape(genesis),
        rows="".join(_row(status) for status in statuses),
        redis="answers" if is_redis_up else "is away",
        free=free_bytes / 10**9,
    )


def _row(status: ModelStatus) -> str:
    state = status.state if status.reason is None else f"{status.state}: {status.reason}"
    if status.state is ModelState.DOWNLOADING and status.expected_bytes:
        state = f"{state} {100 * status.received_bytes // status.expected_bytes} %"
    return _ROW.format(
        name=escape(status.model_name),
        sha256=escape(status.sha256),
        state=escape(state),
        received=status.received_bytes,
        expected="?" if status.expected_bytes is None else f"{status.expected_bytes:,}",
        message=escape(status.message),
    )
