"""The ``physics`` dynamics backend: MuJoCo on the reconstructed scene."""
