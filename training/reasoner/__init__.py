"""The reasoner: its network, lessons, training, metrics and card."""
