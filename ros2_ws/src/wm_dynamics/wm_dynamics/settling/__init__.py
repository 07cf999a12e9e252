"""Settling: from perceived poses to simulated ones (``preparation``, ``rest``) and back (``restoration``)."""
