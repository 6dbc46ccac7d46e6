"""A chain's genesis: the registry under `app_state.remes.model_registry_list[]`, and nothing else of a large file.

Order: the three objects on the path are walked, each of their keys once; the list's entries are taken one by one
(`registry.read_entry`); everything else is skipped, but must be JSON. Memory is bounded whatever the file holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from shared.genesis.json_stream import JsonStream
from shared.genesis.quote import quote
from shared.genesis.refuser import Refuser, check_unique
from shared.genesis.registry import Taken, read_entry
from shared.genesis.strict_json import JsonRefusedError, JsonValue, join
from shared.genesis.types import Genesis, LeftOut

CHAIN_KEY = "app_state"
MAX_ENTRIES = 10_000  # what is kept of each is small, but is kept
_MODULE = "remes"
_LISTS = ("model_registry_list", "modelRegistryList")
_REGISTRY = f"{CHAIN_KEY}.{_MODULE}.{_LISTS[0]}"
# Of the other forms: a file that could be read in two ways is read in neither.
FOREIGN_KEYS = frozenset({"model_config", "models", "model_ipfs"})
MAX_PLAIN_BYTES = 64 * 1024  # of a file with one of these
_NEXT = (
    "name an export of a chain that has one, or write the model's own genesis: "
    "`r3mes genesis add FILE.gguf --name NAME --url URL --genesis NEW.json`"
)


TakeEntry = Callable[[JsonValue, str], None]
"""Takes an entry of the registry, as it stands there, and its path."""


class Walked(Enum):
    """What a file turned out to be: of a plain form, a chain's without a registry, or one that has one."""

    ANOTHER_FORM = auto()
    NO_REGISTRY = auto()
    REGISTRY = auto()


@dataclass(slots=True)
class Registry:
    """What was found in the registry so far."""

    taken: list[Taken] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    inactive: int = 0


def find_registry(stream: JsonStream, refuse: Refuser) -> Registry | None:
    """Read the whole file; None: there is no key `app_state` at its top, and so it is of another form.

    Raises GenesisError for a chain's genesis that is wrong, JsonRefusedError for what is no strict JSON.
    """
    registry = Registry()

    def take(entry: JsonValue, path: str) -> None:
        match read_entry(entry, path, refuse):
            case Taken() as taken:
                registry.taken.append(taken)
            case LeftOut() as left_out:
                registry.left_out.append(left_out)
            case None:
                registry.inactive += 1

    return None if walk_registry(stream, refuse, take) is Walked.ANOTHER_FORM else registry


def walk_registry(stream: JsonStream, refuse: Refuser, take: TakeEntry) -> Walked:
    """Read the whole file and hand each entry of the registry to `take`, as it stands there. Raises as above."""
    walked = Walked.ANOTHER_FORM
    foreign = ""
    opening = stream.peek()
    if not opening:
        raise JsonRefusedError("an empty file", "JSON")
    if opening != "{":
        stream.skip()
        stream.end()
        return walked
    for key in stream.keys(""):
        if key == CHAIN_KEY:
            walked = _walk_state(stream, refuse, take)
            continue
        if key in FOREIGN_KEYS:
            foreign = key
            if walked is Walked.ANOTHER_FORM:  # plain, or wrong in any case: neither takes minutes to be refused
                stream.restrict(MAX_PLAIN_BYTES)
        stream.skip()
    stream.end()
    if walked is not Walked.ANOTHER_FORM and foreign:
        raise refuse.error(foreign, f"the key {foreign} beside {CHAIN_KEY}", "one form: a chain genesis or a plain one")
    return walked


def chain_genesis(registry: Registry, sha256: str, refuse: Refuser) -> Genesis:
    """Return the genesis of the entries that are taken; raises GenesisError where there are none, or two alike."""
    if not registry.taken:
        others = f"{len(registry.left_out)} active and left out, {registry.inactive} not active"
        reasons = "".join(f"; {each.name} {each.reason}" for each in registry.left_out[:3])
        raise refuse.error(_REGISTRY, f"no model that can run here ({others}{reasons})", "an active one", _NEXT)
    check_unique(((f"{each.path}.config", each.pin) for each in registry.taken), refuse)
    return Genesis(tuple(each.pin for each in registry.taken), sha256, tuple(registry.left_out))


def _walk_state(stream: JsonStream, refuse: Refuser, take: TakeEntry) -> Walked:
    _require(stream, "{", CHAIN_KEY, refuse)
    walked = Walked.NO_REGISTRY
    for key in stream.keys(CHAIN_KEY):
        if key == _MODULE:
            walked = _walk_module(stream, refuse, take)
        else:
            stream.skip()
    return walked


def _walk_module(stream: JsonStream, refuse: Refuser, take: TakeEntry) -> Walked:
    path = join(CHAIN_KEY, _MODULE)
    _require(stream, "{", path, refuse)
    walked, seen = Walked.NO_REGISTRY, False
    for key in stream.keys(path):
        if key not in _LISTS:
            stream.skip()
            continue
        if seen:
            raise refuse.error(join(path, key), "the registry in both of its spellings", "each field once")
        seen = True
        walked = _walk_list(stream, refuse, take)
    return walked


def _walk_list(stream: JsonStream, refuse: Refuser, take: TakeEntry) -> Walked:
    if stream.peek() == "n":
        stream.skip()  # null: protobuf's absent list
        return Walked.NO_REGISTRY
    _require(stream, "[", _REGISTRY, refuse)
    for index in stream.elements():
        if index == MAX_ENTRIES:
            raise refuse.error(_REGISTRY, f"more than {MAX_ENTRIES} entries", "a registry of a sensible length")
        path = f"{_REGISTRY}[{index}]"
        take(stream.take(path), path)
    return Walked.REGISTRY


def _require(stream: JsonStream, opening: str, path: str, refuse: Refuser) -> None:
    if stream.peek() != opening:
        found = stream.take(path)
        raise refuse.error(path, quote(found), "an object" if opening == "{" else "a list")
