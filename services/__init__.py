"""One folder a container. A service imports `shared` and itself, never another service."""
