"""What there is to say of the node beside its models and miners."""

from __future__ import annotations

import shutil
from typing import Any

from services.downloader.controller import Controller
from services.downloader.courier import Courier
from shared.store.layout import StoreLayout
from shared.version import __version__


def node_facts(node: str, layout: StoreLayout, controller: Controller, courier: Courier) -> dict[str, Any]:
    """Return node, version, geneses, disk (bytes), queue and Redis, as `/api/v1/status` shows them."""
    trust = controller.watch.current
    disk = shutil.disk_usage(layout.incoming)  # in a container the root is the container's own file system
    return {
        "node": node,
        "version": __version__,
        "genesis_sha256": trust.genesis.sha256,
        "staged_genesis_sha256": trust.staged.sha256 if trust.staged else None,
        "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
        "queue": courier.queue_counts,
        "redis_up": courier.is_up,
    }
