"""Running the nodes: processes, parameters files, the lifecycle manager, the live table."""
