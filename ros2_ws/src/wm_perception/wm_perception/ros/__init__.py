"""What the node is put together from: messages in, messages out; each class has one job and its own state."""
