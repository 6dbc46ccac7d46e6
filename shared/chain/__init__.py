"""The optional chain check: the registry in the genesis of a quorum of nodes may veto a pin, never supply one.

Invariants: nothing that an endpoint says adds a model, an address or a byte to what is wanted; only the endpoints of
R3MES_CHAIN_RPC are asked; what is out of reach, late, too large or wrong counts as no answer, and no quorum stops
nothing.
Order: `parse_endpoints` (settings), `consult` (asks all at once: `asking` does the HTTP, `answers` reads the RPC's
shapes, `registry` the genesis, `verdict` decides; all but `asking` are pure), then `Registry.lacks` for the pins.
"""

from shared.chain.consult import Consultation, consult
from shared.chain.endpoints import ChainRpc, Endpoint
from shared.chain.verdict import Registry

__all__ = ["ChainRpc", "Consultation", "Endpoint", "Registry", "consult"]
