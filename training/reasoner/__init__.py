"""The reasoner: its network, data, training, metrics and card."""
