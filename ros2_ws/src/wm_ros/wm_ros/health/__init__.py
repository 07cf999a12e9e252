"""The health of nodes and of their inputs."""
