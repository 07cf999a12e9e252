"""Worked examples of what asks the imagination: programs to read and to start from."""
