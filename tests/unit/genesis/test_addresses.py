"""Public https, and exactly what the operator configured: by text at acceptance, by address at connection."""

from __future__ import annotations

import pytest

from shared.addresses import AddressPolicy, check_download_sources
from shared.errors import ConfigurationError, GenesisError
from shared.genesis import parse_genesis
from tests.support.geneses import plain_form

LAB = "http://127.0.0.1:8000/m.gguf"
HUGGING_FACE_FILE = "https://huggingface.co/org/m/resolve/abc/m.gguf?download=true"


def policy(*sources: str, **environ: str) -> AddressPolicy:
    return AddressPolicy.from_environ(environ, sources)


PUBLIC = ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "64:ff9b::93.184.216.34", "2002:5db8:d822::1"]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",  # noqa: S104 - an address to refuse, not one to bind
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::93.184.216.34",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "5f00::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed_over_https_alone(address: str) -> None:
    assert policy().allows_address(address)
    assert policy().allows_connection("https", "hub.org", 443, address)
    assert not policy().allows_connection("http", "hub.org", 80, address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused_at_connection(address: str) -> None:
    assert not policy().allows_address(address)
    assert not policy().allows_connection("https", "huggingface.co", 443, address)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.1.1", "2002:a9fe:a9fe::"]
)
def test_link_local_is_refused_even_where_the_operator_configured_it(address: str) -> None:
    configured = policy(HF_ENDPOINT="http://mirror:9000", R3MES_ALLOW_HTTP_SOURCES="169.254.169.254:80")

    assert not configured.allows_connection("http", "mirror", 9000, address)
    assert "link-local" in configured.form_problem("http://169.254.169.254/m.gguf")


FORMS: list[tuple[str, dict[str, str], str]] = [
    (HUGGING_FACE_FILE, {}, ""),
    ("https://93.184.216.34/m.gguf", {}, ""),
    ("http://mirror.org/m.gguf", {}, "plain http"),
    ("https://127.0.0.1/m.gguf", {}, "not public"),
    ("https://10.0.0.1/m.gguf", {}, "not public"),
    ("https://[::1]:8443/m.gguf", {}, "not public"),
    ("https://[::ffff:10.0.0.1]/m.gguf", {}, "not public"),
    ("https://localhost/m.gguf", {}, "not public"),
    ("https://x.localhost/m.gguf", {}, "not public"),
    ("https://LOCALHOST./m.gguf", {}, "not public"),
    (LAB, {}, "plain http"),
    (LAB, {"R3MES_ALLOW_HTTP_SOURCES": "127.0.0.1:8000"}, ""),
    (LAB, {"R3MES_ALLOW_HTTP_SOURCES": "other:80, 127.0.0.1:8000"}, ""),
    (LAB, {"R3MES_ALLOW_HTTP_SOURCES": "127.0.0.1:8001"}, "plain http"),
    (LAB, {"R3MES_ALLOW_HTTP_SOURCES": "localhost:8000"}, "plain http"),
    (LAB, {"R3MES_ALLOW_HTTP_SOURCES": "1"}, ""),
    (LAB, {"R3MES_ALLOW_HTTP_SOURCES": "0"}, "plain http"),
    (LAB, {"R3MES_ALLOW_HTTP_SOURCES": ""}, "plain http"),
    (LAB, {"R3MES_IPFS_GATEWAYS": "https://ipfs.io, http://127.0.0.1:8000/"}, ""),
    (LAB, {"HTTP_PROXY": "http://user:word@127.0.0.1:8000"}, ""),
    (LAB, {"https_proxy": "127.0.0.1:8000"}, ""),
    ("https://127.0.0.1:8000/m.gguf", {"R3MES_ALLOW_HTTP_SOURCES": "127.0.0.1:8000"}, ""),
    ("http://[::1]:8000/m.gguf", {"R3MES_ALLOW_HTTP_SOURCES": "[0:0:0:0:0:0:0:1]:8000"}, ""),
    ("http://Mirror.LAN:80/m.gguf", {"R3MES_ALLOW_HTTP_SOURCES": "mirror.lan:80"}, ""),
    (HUGGING_FACE_FILE, {"HF_ENDPOINT": "http://127.0.0.1:9000"}, ""),
    (HUGGING_FACE_FILE, {"HF_ENDPOINT": "https://169.254.1.1"}, "link-local"),
]


@pytest.mark.parametrize(("url", "environ", "problem"), FORMS)
def test_the_form_of_the_effective_source_is_judged(url: str, environ: dict[str, str], problem: str) -> None:
    judged = AddressPolicy.from_environ(environ, [url])

    found = judged.form_problem(judged.effective_source(url))

    assert problem in found
    assert bool(found) == bool(problem)


REPLACED = [
    (HUGGING_FACE_FILE, "https://mirror.org/hub/org/m/resolve/abc/m.gguf?download=true"),
    ("https://HuggingFace.co:443/m.gguf", "https://mirror.org/hub/m.gguf"),
    ("http://huggingface.co/m.gguf", "http://huggingface.co/m.gguf"),
    ("https://huggingface.co.evil.org/m.gguf", "https://huggingface.co.evil.org/m.gguf"),
    ("https://huggingface.co:8443/m.gguf", "https://huggingface.co:8443/m.gguf"),
    ("https://evil.org/https://huggingface.co/m.gguf", "https://evil.org/https://huggingface.co/m.gguf"),
]


@pytest.mark.parametrize(("source", "effective"), REPLACED)
def test_hf_endpoint_replaces_hugging_face_and_nothing_else(source: str, effective: str) -> None:
    assert policy(HF_ENDPOINT="https://mirror.org/hub/").effective_source(source) == effective
    assert policy().effective_source(source) == source


def test_a_configured_origin_is_exact_in_scheme_host_and_port() -> None:
    configured = policy(HF_ENDPOINT="https://mirror.lan:8443")

    assert configured.allows_origin("https", "MIRROR.lan", 8443)
    assert configured.allows_connection("https", "mirror.lan", 8443, "10.0.0.5")
    assert not configured.allows_origin("http", "mirror.lan", 8443)
    assert not configured.allows_origin("https", "mirror.lan", 443)
    assert not configured.allows_origin("https", "other.mirror.lan", 8443)
    assert not configured.allows_connection("https", "cdn.lan", 8443, "10.0.0.5")


def test_hugging_face_itself_may_not_lead_to_a_private_address() -> None:
    assert not policy().allows_connection("https", "huggingface.co", 443, "10.0.0.5")
    assert not policy(HF_ENDPOINT="https://huggingface.co/").allows_connection(
        "https", "huggingface.co", 443, "10.0.0.5"
    )


WRONG_SETTINGS = [
    ("HF_ENDPOINT", "mirror.org"),
    ("HF_ENDPOINT", "ftp://mirror.org"),
    ("HF_ENDPOINT", "https://user:word@mirror.org"),
    ("HF_ENDPOINT", "https://mirror.org/?x=1"),
    ("R3MES_IPFS_GATEWAYS", "https://ipfs.io,gateway"),
    ("R3MES_ALLOW_HTTP_SOURCES", "mirror.org"),
    ("R3MES_ALLOW_HTTP_SOURCES", "http://mirror.org:80"),
    ("R3MES_ALLOW_HTTP_SOURCES", "mirror.org:0"),
    ("R3MES_ALLOW_HTTP_SOURCES", "mirror.org:99999"),
    ("R3MES_ALLOW_HTTP_SOURCES", "mirror.org:\u0661"),
    ("R3MES_ALLOW_HTTP_SOURCES", "::1:8000"),
    ("R3MES_ALLOW_HTTP_SOURCES", "*:80"),
    ("R3MES_ALLOW_HTTP_SOURCES", "true"),
]


@pytest.mark.parametrize(("name", "value"), WRONG_SETTINGS)
def test_a_setting_that_makes_no_sense_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        policy(**{name: value})

    assert "word" not in caught.value.message


def test_a_refused_source_names_the_model_and_the_setting_that_would_allow_it() -> None:
    genesis = parse_genesis(plain_form(download_source=LAB), file="genesis.json")

    with pytest.raises(GenesisError) as caught:
        check_download_sources(policy(), genesis, file="genesis.json")

    assert caught.value.field == "download_source of Tiny"
    assert "R3MES_ALLOW_HTTP_SOURCES=127.0.0.1:8000" in caught.value.next_step
    check_download_sources(policy(R3MES_ALLOW_HTTP_SOURCES="127.0.0.1:8000"), genesis, file="genesis.json")
