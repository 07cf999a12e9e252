"""Imagined futures on held-out worlds beside the aims: `python -m benchmarks.imagination`."""
