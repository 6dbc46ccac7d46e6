"""`make configuration`: write docs/configuration.md from the settings; a test holds that it is current.

Names, defaults, values and meanings come from the fields of the settings' classes. What no class reads is in `BY_HAND`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr

from launcher.endpoints import ClientSettings
from services.downloader.settings import DownloaderSettings
from services.miner.settings import MinerSettings
from services.verifier.settings import VerifierSettings
from shared.acceptance import InitSettings
from shared.settings import SECRET_NAMES, CommonSettings, ListenAddress

PAGE = Path(__file__).with_name("configuration.md")
_NONE = "\N{EN DASH}"

_HEAD = """# Configuration

Made by `make configuration` from the code; do not change it here. Settings come from the environment alone. Rules for
all of them:

- An `R3MES_*` name that no process knows stops the start with exit code 78. Each process ignores the names of others.
- An empty value counts as unset.
- A secret (marked so) may come as `NAME_FILE` instead, with the path of a file that holds it. Both at once is an error.
- A wrong value names the variable, what was found and what is wanted; secrets are never printed.

In the Compose stack `init` reads `.env` as a file and checks it before anything starts: what it has to know belongs
there, not into the shell's environment. `NAME=` leaves a setting unset. With exit code 78 and the line's number are
refused: a name that stands twice, since the last one would count unseen; a setting of this stack that is empty only
because of what it refers to, as `R3MES_GENESIS_SHA256=${UNSET}`; and a line that is no setting.
"""
_TORCH = """
**A file that llama.cpp refuses** is loaded by PyTorch where the extra `torch` is installed (`make install-torch`, or
`compose.torch.yml`) and the hardware suffices: weights are unpacked to 32 bits, or to 16 where 32 do not fit
or on a GPU, so an 8B file needs 15 to 30 GiB, and less is a refusal before anything is loaded. API, streaming, sampling
and grammars are the same; prefixes are not shared, and it is several times slower. `/v1/models` shows `engine` and
`engine_reason`, the metrics `r3mes_miner_model_info{engine}` and `r3mes_miner_engine_fallback`.
"""


class Row(NamedTuple):
    """One setting as a reader sees it."""

    name: str
    default: str
    values: str
    meaning: str

    def line(self) -> str:
        """Return its row of the table."""
        return f"| `{self.name}` | {self.default} | {self.values} | {self.meaning} |"


_ADDRESSES = (
    Row(
        "HF_ENDPOINT", "`https://huggingface.co`", "URL",
        "a mirror: it replaces that prefix of a `download_source`, and is then an allowed address",
    ),
    Row(
        "R3MES_ALLOW_HTTP_SOURCES", _NONE, "list, or `1`",
        "`host:port` that may be asked over plain http or on a private address; `1`: those of the accepted download "
        "sources. For laboratories",
    ),
    Row("HTTP_PROXY, HTTPS_PROXY, NO_PROXY".replace(", ", "`, `"), _NONE, "URL, list", "as everywhere"),
)  # fmt: skip
_GATEWAYS = Row("R3MES_IPFS_GATEWAYS", _NONE, "list", "as for the downloader: addresses that a source may have")
BY_HAND: dict[str, tuple[Row, ...]] = {
    "init": (*_ADDRESSES, _GATEWAYS),
    "downloader": _ADDRESSES,
    "client": (
        Row(
            "SSL_CERT_FILE", _NONE, "path",
            "certificates to trust in place of those of the web, for a gateway whose certificate is your own; "
            "`REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE` are heeded before it",
        ),
    ),
    "compose": (
        Row("R3MES_MINER_MEMORY", _NONE, "as `8g`", "the memory that a miner may take; unset: what the host has"),
        Row("R3MES_MAX_SEQUENCES", "16", "integer", "the gateway gives a miner four requests more"),
        Row("R3MES_MAX_QUEUE", "64", "integer", "what waits in the gateway"),
        Row("R3MES_REQUEST_SECONDS", "600", "number", "the gateway waits a minute longer"),
        Row("COMPOSE_FILE", "`docker-compose.yml`", "list with `:`", "Compose's own: which files make the stack"),
    ),
}  # fmt: skip
_SECTIONS: tuple[tuple[str, str, type[CommonSettings] | None], ...] = (
    ("Every process", "", CommonSettings),
    ("Acceptance: `init`, and on a host whoever starts first", "init", InitSettings),
    ("Downloader", "downloader", DownloaderSettings),
    ("Verifier", "", VerifierSettings),
    ("Miner", "", MinerSettings),
    ("`r3mes`, where it speaks to a stack", "client", ClientSettings),
    ("Compose", "compose", None),
)


def rows(settings: type[CommonSettings]) -> Iterator[Row]:
    """Yield what a class of settings reads beyond what every process reads; the files of secrets belong to these."""
    described = settings.model_json_schema()["properties"]
    for name, field in settings.model_fields.items():
        is_inherited = settings is not CommonSettings and name in CommonSettings.model_fields
        alias = str(field.alias)
        if is_inherited or alias.removesuffix("_FILE") in SECRET_NAMES - {alias}:
            continue
        yield Row(alias, default_of(field.default), values_of(described[alias]), field.description or "")


def default_of(value: object) -> str:
    """Return a default as one would write it."""
    if value is None or value == ():
        return _NONE
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return f"{value:.10g}"
    return f"`{_text_of(value)}`"


def _text_of(value: object) -> str:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case ListenAddress(host, port):
            return f"{host}:{port}"
        case tuple():
            return ",".join(str(part) for part in value)
        case _:
            return str(value)


def values_of(schema: dict[str, Any]) -> str:
    """Say in a few words which values fit, from the JSON schema of a field."""
    if "anyOf" in schema:
        return " or ".join(values_of(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum") or [schema["const"]])
    kind, form = schema.get("type"), schema.get("format")
    if kind in {"integer", "number"}:
        return f"{kind} {_bounds(schema)}".strip()
    if str(schema.get("$ref")).endswith("/ListenAddress"):
        return "`host:port`"
    simple = {"boolean": "`0`, `1`", "array": "list", "password": "a secret", "path": "path"}
    return simple.get(form or "") or simple.get(kind or "") or _words(schema.get("pattern", ""))


def _bounds(schema: dict[str, Any]) -> str:
    low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if above is not None and schema["type"] == "integer":
        low = above + 1
    if low is None:
        return ", ".join([f"above {above}"] * (above is not None) + [f"at most {high}"] * (high is not None))
    return f"from {low} on" if high is None else f"{low} to {high}"


def _words(pattern: str) -> str:
    """Return the words that a pattern lists; another pattern is explained by the meaning."""
    words = pattern.removeprefix("^(").removesuffix(")$").split("|")
    return ", ".join(f"`{word}`" for word in words) if len(words) > 1 else "text"


def page() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for title, by_hand, settings in _SECTIONS:
        found = [*(rows(settings) if settings else ()), *BY_HAND.get(by_hand, ())]
        parts.append(f"\n## {title}\n\n| name | default | values | meaning |\n|---|---|---|---|\n")
        parts.append("\n".join(row.line() for row in found) + "\n")
        if settings is MinerSettings:
            parts.append(_TORCH)
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
