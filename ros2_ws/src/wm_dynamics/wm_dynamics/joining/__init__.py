"""Joining: objects that are parts of one body (``evidence``) are one body in every future (``dynamics``)."""
