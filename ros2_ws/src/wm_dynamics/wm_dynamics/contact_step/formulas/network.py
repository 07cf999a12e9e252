"""The network that gives each contact its law."""

from __future__ import annotations

from wm_dynamics.contact_step.numbers import Fields, Vector, dense, relu


def network(features: Vector, weights: Fields) -> Vector:
    """The law's numbers (LAW, N) of the features (FEATURES, N) of contacts; ``weights``: ``records.WEIGHTS``."""
    hidden = relu(dense(weights.first, weights.first_bias, features))
    hidden = hidden + relu(dense(weights.second, weights.second_bias, hidden))
    return dense(weights.last, weights.last_bias, hidden)
