"""Trained models: where they are, whether they are what they should be, and which one a configuration names."""
