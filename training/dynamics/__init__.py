"""The dynamics network: its step, data, training and card."""
