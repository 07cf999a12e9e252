"""The steps of `tools/bootstrap.py`: standard library only, and read by Python 3.9 (see the Makefile)."""
