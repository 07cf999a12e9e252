"""Planners that choose among imagined futures, by the batch interface of the imagination."""
