"""Parts of the node: messages in, messages out."""
