"""The costs of a push, a file each; in meters of way left for the target."""
