"""Bad input gets a clear answer in OpenAI's shape, with the field's name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests

from tests.integration.miner.stand import MODEL_NAME, Miner, Store, chat_body, events
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CHAT = "/v1/chat/completions"


def error_of(response: requests.Response) -> dict[str, Any]:
    """The error object, which has exactly OpenAI's fields."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"model": 7}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"typical_p": 0}, "typical_p"),
        ({"mirostat": 3}, "mirostat"),
        ({"mirostat_tau": -1}, "mirostat_tau"),
        ({"repeat_last_n": -2}, "repeat_last_n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"seed": "x"}, "seed"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": 129}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": []}}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}, "grammar"),
        ({"grammar": "root ::= " + "x" * 65_536}, "grammar"),
    ],
)
def test_a_wrong_field_is_refused_by_name(miner: Miner, changes: dict[str, object], param: str) -> None:
    body = {key: value for key, value in {**chat_body("x"), **changes}.items() if value is not None}
    response = miner.post(CHAT, body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(param), error
    assert param.partition(".")[0] in error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model": "\\ud800"}', b"[" * 100_000, b"NaN"]
)
def test_a_body_that_is_no_request_is_refused(miner: Miner, body: bytes) -> None:
    response = requests.post(miner.url + CHAT, data=body, headers={"Content-Type": "application/json"}, timeout=30)
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"
    assert miner.get("/healthz").status_code == 200


def test_a_body_that_is_not_called_json_is_told_how(miner: Miner) -> None:
    response = requests.post(miner.url + CHAT, data='{"model": "x"}', timeout=30)
    assert response.status_code == 400
    assert "Content-Type: application/json" in error_of(response)["message"]


def test_half_a_surrogate_in_a_message_is_refused_and_kills_nothing(miner: Miner) -> None:
    body = b'{"model": "%s", "messages": [{"role": "user", "content": "\\ud800"}]}' % MODEL_NAME.encode()
    response = requests.post(miner.url + CHAT, data=body, headers={"Content-Type": "application/json"}, timeout=30)
    assert response.status_code == 400
    assert error_of(response)["param"].startswith("messages.0.content")


def test_an_unknown_model_is_not_found(miner: Miner) -> None:
    response = miner.post(CHAT, {**chat_body("x"), "model": "no-such-model"})
    assert response.status_code == 404
    error = error_of(response)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert miner.get("/v1/models/no-such-model").status_code == 404


@pytest.mark.parametrize("path", ["/", "/v1/nothing", "/v1", "/V1/models", "/v1/chat/completions/"])
def test_an_unknown_route_is_answered_in_the_same_shape(miner: Miner, path: str) -> None:
    response = miner.get(path, allow_redirects=False)
    assert response.status_code == 404
    assert error_of(response)["code"] == "unknown_url"


@pytest.mark.parametrize("lines", [1, 2_000])
def test_headers_that_are_too_long_are_refused_and_the_miner_goes_on(miner: Miner, lines: int) -> None:
    header = b"".join(b"X-%d: %s\r\n" % (number, b"a" * (100_000 // lines)) for number in range(lines))
    with socket.create_connection(("127.0.0.1", miner.port), timeout=30) as connection:
        with suppress(ConnectionError):  # it hangs up in the middle
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
        with suppress(ConnectionResetError):
            assert connection.recv(12) in (b"HTTP/1.1 431", b"HTTP/1.1 400"), "whole, or still on their way"
    assert miner.get("/v1/models", headers={"X-Long": "a" * 16_000}).ok


def test_a_wrong_method_has_its_own_answer(miner: Miner) -> None:
    assert error_of(miner.get(CHAT))["code"] == "method_not_allowed"


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(miner: Miner) -> None:
    response = miner.chat("word " * 9000)
    assert response.status_code == 400
    error = error_of(response)
    assert error["code"] == "context_length_exceeded"
    assert "8192" in error["message"]
    assert "90" in error["message"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(miner: Miner) -> None:
    with socket.create_connection(("127.0.0.1", miner.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 999999999\r\n\r\n{"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_counted_while_it_arrives(miner: Miner) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(5 * 16):
            yield b"x" * 65_536

    response = requests.post(miner.url + CHAT, data=pieces(), headers={"Content-Type": "application/json"}, timeout=30)
    assert response.status_code == 413
    assert error_of(response)["type"] == "invalid_request_error"


def test_a_client_that_leaves_frees_its_sequence(miner: Miner) -> None:
    left = miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="cancelled")
    for stream in (True, False):
        body = chat_body("Tell me a very long story.", max_tokens=4000, ignore_eos=True, stream=stream)
        prepared = requests.Request("POST", miner.url + CHAT, json=body).prepare()
        with socket.create_connection(("127.0.0.1", miner.port), timeout=30) as connection:
            head = "".join(f"{key}: {value}\r\n" for key, value in prepared.headers.items())
            assert isinstance(prepared.body, bytes)
            connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + prepared.body)
            wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 1, 30, "the request runs")
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 0, 10, "its sequence is free")
    assert miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="cancelled") == left + 2
    assert miner.metric("r3mes_miner_kv_cache_usage_ratio") == 0


def test_more_requests_than_the_queue_holds_are_told_when_to_come_back(store: Store) -> None:
    store.put_model()
    limits = {"R3MES_MAX_SEQUENCES": "1", "R3MES_MAX_QUEUE": "1", "R3MES_MAX_PROMPT_TOKENS": "100"}
    with Miner(store, limits) as miner:
        miner.wait_ready()
        long = {"max_tokens": 2000, "ignore_eos": True, "stream": True}
        with miner.chat("Tell me a story.", **long) as first:
            assert first.status_code == 200
            with socket.create_connection(("127.0.0.1", miner.port)) as second:
                body = requests.Request("POST", miner.url + CHAT, json=chat_body("x", **long)).prepare()
                head = "".join(f"{key}: {value}\r\n" for key, value in body.headers.items())
                assert isinstance(body.body, bytes)
                second.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body.body)
                wait_until(lambda: miner.metric("r3mes_miner_requests_waiting") == 1, 30, "the second waits")
                third = miner.chat("x")
                assert third.status_code == 429
                assert error_of(third)["type"] == "rate_limit_error"
                assert int(third.headers["Retry-After"]) >= 1
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 0, 30, "both are gone")
        assert miner.chat("What is gravity?").status_code == 200
        too_long = miner.chat("word " * 200)
        assert error_of(too_long)["code"] == "context_length_exceeded"


def test_keys_guard_the_api_and_nothing_else(store: Store) -> None:
    store.put_model()
    secret = store.folder / "keys"
    secret.write_text("first-key\nsecond-key\n")
    with Miner(store, {"R3MES_API_KEYS_FILE": str(secret)}) as miner:
        miner.wait_ready()
        assert miner.get("/healthz").status_code == 200
        assert "first-key" not in miner.get("/metrics").text
        refused = miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="unauthorized")
        assert miner.chat("x").status_code == 401
        assert miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="unauthorized") == refused + 1
        for header in (None, "Bearer wrong", "Basic first-key", "Bearer", "first-key", "Bearer first-key second-key"):
            response = miner.get("/v1/models", headers={} if header is None else {"Authorization": header})
            assert response.status_code == 401, header
            assert error_of(response)["code"] == "invalid_api_key"
        assert miner.get("/v1/nothing").status_code == 401

        def status_with(key: str) -> int:
            return miner.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code

        assert [status_with(key) for key in ("first-key", "second-key")] == [200, 200]
        secret.write_text("third-key\n")  # in place, as a secret that is mounted changes
        wait_until(lambda: status_with("third-key") == 200, 10, "the new key counts")
        assert [status_with(key) for key in ("first-key", "second-key")] == [401, 401]
        secret.unlink()
        assert "first-key" not in miner.log.read_text()


def test_a_request_that_takes_too_long_ends_with_a_timeout(store: Store) -> None:
    store.put_model()
    with Miner(store, {"R3MES_REQUEST_SECONDS": "2"}) as miner:  # room for a first token on a busy machine
        miner.wait_ready()
        long = {"max_tokens": 4000, "ignore_eos": True}
        response = miner.chat("Tell me a story.", **long)
        assert response.status_code == 504
        assert error_of(response)["code"] == "timeout"
        streamed = events(miner.chat("Tell me a story.", stream=True, **long))
        assert streamed[-1]["error"]["code"] == "timeout"
        wait_until(lambda: miner.metric("r3mes_miner_requests_running") == 0, 10, "the sequence is free")
