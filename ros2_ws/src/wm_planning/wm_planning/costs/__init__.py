"""What a push costs, a cost a file; each in meters of way left for the target."""
