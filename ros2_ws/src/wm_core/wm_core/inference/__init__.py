"""Inference: one session interface, one file for each runtime, engines and their cache."""
