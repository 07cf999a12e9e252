"""Imagined RGB-D images: what was seen, drawn again where it is imagined to be."""
