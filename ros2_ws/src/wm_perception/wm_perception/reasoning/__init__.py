"""What objects have to do with one another: relations, events, causes, properties."""
