"""The demonstration: scenarios, the run, the ground truth beside it, how right it was."""
