"""Recordings: made, read, put through perception again, compared."""
