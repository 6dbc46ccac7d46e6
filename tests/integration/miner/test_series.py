"""/metrics stays as large as it is, whatever is asked, however often, and through whatever deaths of the engine."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.miner.crashing import IMPATIENT
from tests.integration.miner.stand import Miner, Store
from tests.support.scraped import scraped, went_back
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REQUESTS = 10_000
ANSWERED = 300
CLIENTS = 8
DEATHS = 4
SERIES = 180  # of a miner without GPUs, as docs/metrics.md says
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
REFUSED = {400, 401, 404, 405, 413, 415, 422}
Ask = tuple[str, str, bytes | None, dict[str, str]]


def strange(seed: int) -> Iterator[Ask]:
    """Requests that are refused quickly, no two alike: paths, methods, models, headers, bodies."""
    draw = random.Random(seed)  # noqa: S311  (the same each time)
    yield from (
        draw.choice(
            (
                ("GET", f"/{draw.getrandbits(64):x}/{number}?q={draw.getrandbits(32)}", None, {}),
                ("GET", f"/metrics/{draw.getrandbits(64):x}", None, {}),
                ("POST", draw.choice(PATHS), json.dumps({"model": f"model-{number}", "messages": []}).encode(), {}),
                ("POST", draw.choice(PATHS), b"{" * draw.randrange(1, 50), {}),
                ("POST", f"/v1/chat/completions/{number}", b"{}", {}),
                (f"M{draw.getrandbits(24):X}", draw.choice(PATHS), None, {}),
                ("DELETE", draw.choice(PATHS), None, {}),
                ("POST", draw.choice(PATHS), b"{}", {"Authorization": f"Bearer {draw.getrandbits(64):x}"}),
                ("POST", draw.choice(PATHS), b"{}", {"User-Agent": f"agent/{number}", "X-Request-Id": f"{number}"}),
                ("POST", draw.choice(PATHS), b"", {"Content-Length": "999999999"}),
            )
        )
        for number in itertools.count()
    )


def send(miner: Miner, asks: list[Ask]) -> Counter[int]:
    """Send these over one connection, one after the other."""
    statuses: Counter[int] = Counter()
    with requests.Session() as session:
        for method, path, body, headers in asks:
            if "Content-Length" in headers:
                statuses[too_long(miner, path)] += 1
                continue
            statuses[session.request(method, miner.url + path, data=body, headers=headers, timeout=60).status_code] += 1
    return statuses


def too_long(miner: Miner, path: str) -> int:
    """Announce a body that is too long, send none of it, and return the status of the answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", miner.port, timeout=60)) as connection:
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(10**9))
        connection.endheaders()
        return connection.getresponse().status


def answered(miner: Miner, number: int) -> int:
    fields: dict[str, Any] = {"max_tokens": 1, "user": f"user-{number}"}
    return miner.chat(f"Number {number}", **fields).status_code


FDS = ("process_open_fds", frozenset[tuple[str, str]]())


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_ten_thousand_requests_leave_no_series_and_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_model()
    with Miner(store) as miner, ThreadPoolExecutor(CLIENTS) as threads:
        miner.wait_ready()
        before, files = scraped(miner.get("/metrics").text), files_of(tmp_path)
        assert len(before) <= SERIES
        asks = list(itertools.islice(strange(1), REQUESTS - ANSWERED))
        found = sum(threads.map(lambda part: send(miner, asks[part::CLIENTS]), range(CLIENTS)), Counter[int]())
        assert found.total() == len(asks)
        assert set(found) <= REFUSED, found
        assert set(threads.map(lambda number: answered(miner, number), range(ANSWERED))) == {200}
        assert miner.metric("r3mes_miner_requests_total", endpoint="chat", outcome="ok") == ANSWERED
        after = scraped(miner.get("/metrics").text)
        assert set(after) == set(before)
        assert went_back(before, after) == []
        assert files_of(tmp_path) == files
        assert after[FDS] <= before[FDS] + 2 * CLIENTS


def test_deaths_of_the_engine_leave_no_series_and_no_file_and_take_no_count_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_model()
    with Miner(store, module=IMPATIENT) as miner:
        miner.wait_ready()
        before, files = scraped(miner.get("/metrics").text), files_of(tmp_path)
        earlier, pids = before, set()
        for death in range(1, DEATHS + 1):
            assert miner.chat("Still there?", max_tokens=4).status_code == 200
            (engine,) = miner.engines()
            pids.add(engine.pid)
            engine.kill()
            wait_until(lambda n=death: miner.metric("r3mes_miner_engine_restarts_total") >= n, 90, "the restart")  # type: ignore[misc]
            miner.wait_ready()
            now = scraped(miner.get("/metrics").text)
            assert set(now) == set(before)
            assert went_back(earlier, now) == []
            earlier = now
        assert len(pids) == DEATHS
        assert miner.metric("r3mes_miner_generation_tokens_total") >= DEATHS
        assert files_of(tmp_path) == files
        assert earlier[FDS] <= before[FDS] + 2
