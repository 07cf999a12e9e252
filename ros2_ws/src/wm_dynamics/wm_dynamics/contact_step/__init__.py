"""One step of rigid bodies in contact, as the dynamics network makes it, compiled for the processor."""
