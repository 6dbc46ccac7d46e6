"""The chain's veto in a running downloader: nothing is fetched while it stands, and all that is verified stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.acceptance import load_init_settings, start_store
from tests.support.chain_nodes import Node, chain_genesis, chain_of, rpc, stalls
from tests.support.downloader_process import Downloader, model, promote
from tests.support.downloader_stand import DATA, DIGEST, PATH, incoming_is_right
from tests.support.geneses import OTHER_DIGEST
from tests.support.origin_server import Answer, Hold, ScriptedOrigin, linked, ranged, status
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow  # each case starts a downloader, which starts a consultation

RIGHT = chain_genesis(DIGEST)
OTHER = chain_genesis(OTHER_DIGEST)
VETO = 'r3mes_chain_veto{model="Tiny"}'


class FastDownloader(Downloader):
    """It asks the chain again after moments."""

    module = "tests.support.fast_downloader"


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    with chain_of(3) as nodes:
        yield nodes


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin() as origin:
        origin.scripts[PATH] = ranged(DATA, headers=linked(DATA))
        yield origin


@pytest.fixture
def service(tmp_path: Path, origin: ScriptedOrigin, nodes: list[Node]) -> Iterator[Downloader]:
    """A downloader, not started, of a genesis that was accepted before anybody thought of a chain."""
    service = FastDownloader(tmp_path / "home", model(DATA), environ={"HF_ENDPOINT": origin.url})
    yield from _prepared(service, nodes)


@pytest.fixture
def patient(tmp_path: Path, origin: ScriptedOrigin, nodes: list[Node]) -> Iterator[Downloader]:
    """The same with the times of every day: a consultation may take a minute."""
    service = Downloader(tmp_path / "home", model(DATA), environ={"HF_ENDPOINT": origin.url})
    yield from _prepared(service, nodes)


def _prepared(service: Downloader, nodes: list[Node]) -> Iterator[Downloader]:
    start_store(*load_init_settings(service.environ, project=service.home))
    service.environ["R3MES_CHAIN_RPC"] = rpc(nodes)
    yield service
    service.kill()


def serve(nodes: list[Node], genesis: object) -> None:
    for node in nodes:
        node.serve(genesis)


def test_a_veto_holds_the_download_up_and_its_end_lets_it_begin(
    service: Downloader, nodes: list[Node], origin: ScriptedOrigin
) -> None:
    serve(nodes, OTHER)
    service.start()

    vetoed = service.wait_for(DIGEST, "vetoed")
    assert "chain" in vetoed["message"]
    assert service.metric(VETO) == 1
    assert service.ask(DIGEST, "retry").status_code == 202
    asked = len(nodes[0].requests)
    wait_until(lambda: len(nodes[0].requests) > asked + 1, 30, "the chain to be asked again")
    assert service.status(DIGEST)["state"] == "vetoed"
    assert origin.connections == 0

    serve(nodes, RIGHT)
    wait_until(lambda: incoming_is_right(service), 30, "the download")
    promote(service.layout, DIGEST, "tiny.gguf", DATA)
    service.wait_for(DIGEST, "verified")
    assert service.metric(VETO) == 0


def test_no_download_begins_before_the_chain_was_heard_once(
    patient: Downloader, nodes: list[Node], origin: ScriptedOrigin
) -> None:
    may_answer = threading.Event()

    def hesitates(answer: Answer) -> None:
        may_answer.wait(60)
        status(503)(answer)

    for node in nodes:
        node.scripts["/genesis"] = hesitates
    patient.start()
    wait_until(lambda: all(node.requests for node in nodes), 30, "the question")

    assert patient.status(DIGEST)["state"] == "absent"
    assert patient.status(DIGEST)["message"] == "waits for the chain's word"
    assert origin.connections == 0
    may_answer.set()
    wait_until(lambda: incoming_is_right(patient), 30, "the download")  # out of reach stops nothing
    assert patient.event("the chain check stops nothing")


def test_endpoints_that_are_down_stop_nothing(service: Downloader, nodes: list[Node]) -> None:
    serve(nodes[:1], OTHER)
    for node in nodes[1:]:
        node.scripts["/genesis"] = status(503)
    service.start()

    wait_until(lambda: incoming_is_right(service), 30, "the download")
    assert service.metric(VETO) == 0


def test_what_is_verified_stays_under_a_veto_and_the_metric_tells(service: Downloader, nodes: list[Node]) -> None:
    serve(nodes, RIGHT)
    service.start()
    wait_until(lambda: incoming_is_right(service), 30, "the download")
    promote(service.layout, DIGEST, "tiny.gguf", DATA)
    service.wait_for(DIGEST, "verified")

    serve(nodes, OTHER)

    wait_until(lambda: service.metric(VETO) == 1, 30, "the metric")
    wait_until(lambda: "stays" in service.status(DIGEST)["message"], 30, "the message")
    assert service.status(DIGEST)["state"] == "verified"
    assert service.layout.verified_file(DIGEST, "tiny.gguf").read_bytes() == DATA


def test_a_veto_stops_a_running_download_keeps_its_bytes_and_its_end_goes_on_from_them(
    service: Downloader, nodes: list[Node], origin: ScriptedOrigin
) -> None:
    serve(nodes, RIGHT)
    hold = Hold(len(DATA) // 2)
    origin.scripts[PATH] = ranged(DATA, headers=linked(DATA), hold=hold)
    service.start()
    assert hold.reached.wait(30)
    service.wait_for(DIGEST, "downloading")

    serve(nodes, OTHER)
    service.wait_for(DIGEST, "vetoed")
    hold.release()
    kept = wait_until(lambda: service.status(DIGEST)["received_bytes"], 10, "bytes that were kept")
    assert 0 < kept < len(DATA)

    serve(nodes, RIGHT)
    wait_until(lambda: incoming_is_right(service), 30, "the download")
    assert origin.sent(PATH) < len(DATA) * 3 // 2


def test_a_veto_outlives_endpoints_that_go_away_until_a_quorum_speaks_again(
    service: Downloader, nodes: list[Node], origin: ScriptedOrigin
) -> None:
    serve(nodes, OTHER)
    service.start()
    service.wait_for(DIGEST, "vetoed")

    for node in nodes:
        node.scripts["/genesis"] = status(503)
    wait_until(lambda: service.event("the chain check stops nothing"), 30, "a consultation without a quorum")
    assert service.status(DIGEST)["state"] == "vetoed"
    assert origin.connections == 0

    serve(nodes, RIGHT)
    wait_until(lambda: incoming_is_right(service), 30, "the download")


def test_a_downloader_in_the_middle_of_a_consultation_stops_at_once_and_leaves_nobody_behind(
    patient: Downloader, nodes: list[Node]
) -> None:
    for node in nodes:
        node.scripts["/genesis"] = stalls()
    patient.start()
    wait_until(lambda: all(node.requests for node in nodes), 30, "the question")
    pids = consultations(patient)
    assert len(pids) == 1

    code, _ = patient.terminate()

    assert code == 0
    wait_until(lambda: not Path(f"/proc/{pids[0]}").exists(), 10, "the consultation to end")


def test_a_killed_downloader_takes_its_consultation_with_it(patient: Downloader, nodes: list[Node]) -> None:
    for node in nodes:
        node.scripts["/genesis"] = stalls()
    patient.start()
    wait_until(lambda: all(node.requests for node in nodes), 30, "the question")
    pids = consultations(patient)

    patient.kill()

    wait_until(lambda: not Path(f"/proc/{pids[0]}").exists(), 10, "the consultation to end")


def test_a_consultation_is_given_no_secret_and_the_lowest_priority(patient: Downloader, nodes: list[Node]) -> None:
    for node in nodes:
        node.scripts["/genesis"] = stalls()
    patient.environ["HF_TOKEN"] = "hf_secret"
    patient.start()
    wait_until(lambda: all(node.requests for node in nodes), 30, "the question")

    process = Path(f"/proc/{consultations(patient)[0]}")
    environ = (process / "environ").read_bytes()

    assert b"hf_secret" not in environ
    assert b"R3MES_" not in environ
    assert (process / "stat").read_text().rpartition(")")[2].split()[16] == "19"


def consultations(service: Downloader) -> list[int]:
    """Return the pids of the downloader's children."""
    assert service._process is not None
    tasks = Path(f"/proc/{service._process.pid}/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def test_fewer_than_three_endpoints_stop_the_start(service: Downloader, nodes: list[Node]) -> None:
    service.environ["R3MES_CHAIN_RPC"] = rpc(nodes[:2])

    assert service.run_to_end() == 78
    assert "wanted 3 to 16 RPC endpoints, found 2" in service.log
