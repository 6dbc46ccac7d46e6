"""The real Redis of the tests: the same starter that `r3mes demo` uses."""

from launcher.redis_server import RedisServer, find_redis_server

__all__ = ["RedisServer", "find_redis_server"]
