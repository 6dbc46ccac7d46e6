"""Ports for servers that live for one test. Prefer binding to port 0 where the server tells its port."""

from launcher.ports import free_port

__all__ = ["free_port"]
