"""Every limit of a download, with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one download; tests shorten the times."""

    # Connections at once; R3MES_DOWNLOAD_CONNECTIONS.
    connections: int = 8
    # Bytes asked for in one request: bounded, since some CDNs refuse a whole large file; large, to keep requests few.
    range_bytes: int = 32 * MIB
    # Nothing smaller is split off for another connection: a request costs a round trip.
    least_range_bytes: int = MIB
    # No byte this far beyond the first missing one is asked for, so that whoever follows the prefix keeps up.
    window_bytes: int = 384 * MIB
    # Low-space mode: bytes that may lie ahead of the verifier's durable copy.
    ahead_bytes: int = 384 * MIB
    # Bytes taken from the socket at once.
    buffer_bytes: int = MIB
    # Data is synced and the journal written after this many bytes or seconds.
    journal_bytes: int = 8 * MIB
    journal_seconds: float = 1.0
    # Nothing more is taken from the network while so many bytes are not durable. A SIGKILL may cost 64 MiB in all:
    # these, two buffers of each connection (one that was let through, one being filled), and what the kernel holds.
    unsynced_bytes: int = 24 * MIB
    # What the kernel may receive ahead of us: by itself it goes up to `net.ipv4.tcp_rmem`, and some hosts set 32 MiB.
    received_bytes: int = 20 * MIB
    # Seconds until a connection stands, TLS included.
    connect_seconds: float = 10.0
    # Seconds until the answer's first byte: a gateway may have to find the content first.
    first_byte_seconds: float = 30.0
    # A body has stalled when fewer than so many bytes came in so many seconds of waiting for the network.
    stall_bytes: int = 64 * 1024
    stall_seconds: float = 30.0
    # A source has failed after this many failures, or seconds, without one new byte.
    failures: int = 5
    quiet_seconds: float = 90.0
    # A source that brings less than this over `quiet_seconds` has failed, too: it would take days, and never end.
    least_bytes_per_second: int = 4096
    # Back-off between two tries of one source: doubling from the first to the longest, in seconds.
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 20.0
    # A connection that broke after it had brought something goes on after this many seconds.
    soon_seconds: float = 0.1
    # A request is led on at most this many times.
    redirects: int = 5
    # The chain: how long all endpoints together may take, and when they are asked again: a genesis hardly ever changes
    # and may be large, a veto may be lifted, and without a quorum the wait doubles from the first to `again` (seconds).
    chain_seconds: float = 60.0
    chain_again_seconds: float = 3600.0
    chain_veto_seconds: float = 600.0
    chain_silent_seconds: float = 60.0


DEFAULT_LIMITS = Limits()

# Under a bandwidth limit there is one connection for each so many bytes a second: more would only wait.
_BYTES_PER_CONNECTION = 256 * 1024


def limits_for(limits: Limits, connections: int, max_bytes_per_second: int | None) -> Limits:
    """Return `limits` for the operator's settings: our own bandwidth limit makes no source too slow."""
    if max_bytes_per_second is None:
        return replace(limits, connections=connections)
    return replace(
        limits,
        connections=max(1, min(connections, max_bytes_per_second // _BYTES_PER_CONNECTION)),
        least_bytes_per_second=min(limits.least_bytes_per_second, max_bytes_per_second // 4),
    )


# A lease is renewed this often, and one that does not change for EXPIRY is dead (seconds).
LEASE_RENEW_SECONDS = 5.0
LEASE_EXPIRY_SECONDS = 20.0

# All sources failed: the next round begins after a minute, doubling to an hour (seconds).
FIRST_ROUND_SECONDS = 60.0
LONGEST_ROUND_SECONDS = 3600.0

# A verdict that neither comes nor shows progress for this long is asked for again (seconds).
VERDICT_SECONDS = 20.0

# How often one source may deliver wrong bytes under one genesis before it is not asked any more.
MISMATCHES_PER_SOURCE = 2
