"""The demonstration: scenarios, the run, its ground truth, the errors."""
