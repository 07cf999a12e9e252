"""Every model on every runtime, beside torch: `python -m benchmarks.engines`."""
