"""Trained models: their files, the checks of their contracts, and the choice that a configuration makes."""
