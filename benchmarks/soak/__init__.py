"""Growth of the nodes' memory over a long run: `python -m benchmarks.soak`."""
