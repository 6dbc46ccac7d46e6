"""The pinned source, its token, and the IPFS gateways, asked by the downloader's own connection."""

from __future__ import annotations

from functools import partial

from launcher.doctor.judges.sources import TokenFacts, judge_gateway, judge_mirror, judge_source, judge_token
from launcher.doctor.probes.together import together
from launcher.doctor.subject import Subject
from launcher.doctor.verdict import Verdict, skipped
from services.downloader.run_once import PUBLIC_IPFS_GATEWAYS, Look, Scout
from shared.addresses import HUGGING_FACE, origin_of
from shared.genesis import ModelPin
from shared.settings import split_list

SECONDS = 4.0
MOST_PINS = 4
MOST_GATEWAYS = 6


def check_source(subject: Subject) -> list[Verdict]:
    """Ask where each pinned model comes from."""
    pins = pins_to_ask(subject)
    if not pins:
        return [skipped("no genesis says what to ask for")]
    looks = together([partial(look_at_source, subject, pin) for pin in pins])
    needed = {pin.sha256 for pin in subject.outstanding}
    verdicts = [
        judge_source(pin.model_name, look, needed=pin.sha256 in needed) for pin, look in zip(pins, looks, strict=True)
    ]
    left = len(subject.pins) - len(pins)
    if left:
        verdicts.append(skipped(f"{left} more models are pinned; the first {len(pins)} were asked for"))
    return verdicts


def check_token(subject: Subject) -> list[Verdict]:
    """See how the source took the token."""
    asked = scout(subject)
    token = subject.secret("HF_TOKEN")
    pins = pins_to_ask(subject)
    endpoint = asked.policy.hf_endpoint
    sent = [pin for pin in pins if origin_of(asked.source_of(pin)) == origin_of(endpoint)]
    look = look_at_source(subject, sent[0]) if sent and not subject.offline else None
    where = "" if token is None else "HF_TOKEN" if subject.environ.get("HF_TOKEN") else "HF_TOKEN_FILE"
    facts = TokenFacts(
        where=where,
        has_space=token is not None and len(token.split()) != 1,
        is_sent=bool(sent) or not pins,
        endpoint=endpoint,
        status=look.status if look else None,
    )
    return [judge_token(facts)]


def check_mirror(subject: Subject) -> list[Verdict]:
    """See whether another endpoint stands in Hugging Face's place."""
    policy = scout(subject).policy
    problem = "" if policy.hf_endpoint == HUGGING_FACE else policy.form_problem(policy.hf_endpoint)
    return [judge_mirror(policy.hf_endpoint, HUGGING_FACE, problem)]


def check_gateways(subject: Subject) -> list[Verdict]:
    """Ask each gateway for the first byte of a pinned file."""
    pin = next((pin for pin in (*subject.outstanding, *subject.pins) if pin.ipfs_fallback_hash), None)
    if pin is None:
        return [skipped("no pin names a CID, so gateways are not asked")]
    asked = scout(subject)
    gateways = gateways_of(subject)[:MOST_GATEWAYS]
    looks = together([partial(asked.look, pin, gateway, seconds=SECONDS) for gateway in gateways])
    return [judge_gateway(look) for look in looks]


def scout(subject: Subject) -> Scout:
    """Return the one that asks; raises ConfigurationError when the settings about addresses make no sense."""
    return subject.shelf.once(
        "scout", lambda: Scout(subject.environ, subject.pins, _sendable(subject.secret("HF_TOKEN")))
    )


def look_at_source(subject: Subject, pin: ModelPin) -> Look:
    """Ask a pin's own source, once for all checks."""
    return subject.shelf.once(("look", pin.sha256), lambda: scout(subject).look(pin, seconds=SECONDS))


def pins_to_ask(subject: Subject) -> tuple[ModelPin, ...]:
    """Return a few pins, those that are not verified yet first."""
    rest = tuple(pin for pin in subject.pins if pin not in subject.outstanding)
    return (*subject.outstanding, *rest)[:MOST_PINS]


def gateways_of(subject: Subject) -> tuple[str, ...]:
    """Return the IPFS gateways that the downloader asks."""
    named = split_list(subject.environ.get("R3MES_IPFS_GATEWAYS", ""))
    return tuple(named) if isinstance(named, tuple) and named else PUBLIC_IPFS_GATEWAYS


def _sendable(token: str | None) -> str | None:
    """A token that no header can carry is not sent; its own check says so."""
    return token if token and len(token.split()) == 1 and token.isascii() else None
