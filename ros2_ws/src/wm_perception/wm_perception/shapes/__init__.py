"""Shapes: surfaces of primitives and hulls, and primitives fitted to points."""
