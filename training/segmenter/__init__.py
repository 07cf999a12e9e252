"""The segmenter: its network, training, evaluation and card."""
