"""Images, clouds and intrinsics between messages and arrays."""
