"""Which file system is measured: the one that downloads go to. In a container the store's root is no mount of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from services.downloader.assembly import build_controller
from services.downloader.board import Board
from services.downloader.controller import Controller
from services.downloader.courier import Courier
from services.downloader.node_facts import node_facts
from services.downloader.observe import measure_room
from services.downloader.settings import DownloaderSettings
from shared.settings import load_settings
from shared.store.layout import StoreLayout
from shared.store.trust import TrustWatch
from tests.support.geneses import plain_form
from tests.support.genesis_host import Host

BLOCK, FREE, TOTAL = 4096, 7, 11


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreLayout:
    """A store in which `incoming` alone is on a disk of seven free blocks of eleven, as in a container."""
    host = Host(tmp_path)
    host.file.write_bytes(plain_form(size_bytes=1000))
    host.start()
    incoming, real = str(host.layout.incoming), os.statvfs

    def statvfs(path: str | os.PathLike[str]) -> os.statvfs_result:
        if not str(path).startswith(incoming):
            return real(path)
        return os.statvfs_result((BLOCK, BLOCK, TOTAL, FREE, FREE, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    return host.layout


def controller(layout: StoreLayout) -> Controller:
    courier = cast("Courier", SimpleNamespace(copies=dict, queue_counts=None, is_up=False))
    settings = load_settings(DownloaderSettings, {"R3MES_MODELS_DIR": str(layout.root)})
    watch, stop = TrustWatch(layout), threading.Event()
    return build_controller(settings, {}, layout, watch, stop, lambda _: None, board=Board(), courier=courier)


def test_room_for_a_download_is_that_of_incoming(layout: StoreLayout) -> None:
    assert measure_room(layout, "0" * 64, (), {}).free == FREE * BLOCK


def test_status_shows_the_disk_of_incoming(layout: StoreLayout) -> None:
    courier = cast("Courier", SimpleNamespace(queue_counts=None, is_up=False))
    shown = node_facts("node", layout, controller(layout), courier)["disk"]
    assert shown == {"free_bytes": FREE * BLOCK, "total_bytes": TOTAL * BLOCK}


def test_the_metric_tells_of_the_disk_of_incoming(layout: StoreLayout) -> None:
    registry = controller(layout).metrics.registry
    assert registry.get_sample_value("r3mes_disk_free_bytes") == FREE * BLOCK
