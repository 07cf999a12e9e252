"""What nodes and their inputs say of their health."""
