"""Household things that are all made by rule: meshes, prints, worlds and sensors of the split ``homeware``."""
