"""All checks, in the order of the report. Each is described in docs/troubleshooting.md, which a test holds."""

from __future__ import annotations

from launcher.doctor.probes import containers, inference, network, redis, settings, sources, stack, store, trust
from launcher.doctor.running import Check
from shared.errors import ExitCode

# Seconds. A resolver that is not there answers after five; a Python that reads a large library in takes a second, and
# on a busy machine many.
_NETWORK = 6.0
_PROGRAM = 20.0
_AWAY = ExitCode.SOURCE_UNAVAILABLE

CHECKS = (
    Check("settings", "settings", settings.check_settings, _PROGRAM),
    Check("settings", "contradictions", settings.check_contradictions),
    Check("settings", "secret-files", settings.check_secret_files),
    Check("network", "route", network.check_routes, leaves_host=True),
    Check("network", "dns", network.check_dns, _NETWORK, leaves_host=True, when_late=_AWAY),
    Check("network", "proxy", network.check_proxies),
    Check("network", "clock", network.check_clock, _NETWORK),
    Check("sources", "source", sources.check_source, _NETWORK, leaves_host=True, when_late=_AWAY),
    Check("sources", "token", sources.check_token, _NETWORK),
    Check("sources", "mirror", sources.check_mirror),
    Check("sources", "ipfs", sources.check_gateways, _NETWORK, leaves_host=True),
    Check("store", "store", store.check_kind),
    Check("store", "disk", store.check_room),
    Check("store", "file-system", store.check_file_system),
    Check("store", "rights", store.check_rights),
    Check("store", "genesis", trust.check_genesis),
    Check("store", "models", store.check_models, None),
    Check("services", "redis", redis.check_redis),
    Check("services", "ports", stack.check_ports),
    Check("services", "stack", stack.check_services),
    Check("inference", "llama-cpp", inference.check_llama, _PROGRAM),
    Check("inference", "gpu", inference.check_gpu, _PROGRAM),
    Check("inference", "memory", inference.check_memory),
    Check("inference", "open-files", inference.check_descriptors),
    Check("containers", "docker", containers.check_engine),
    Check("containers", "compose", containers.check_compose),
    Check("containers", "nvidia-toolkit", containers.check_toolkit, _PROGRAM),
)
