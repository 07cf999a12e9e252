"""What the robot has seen of each object and of the background, kept so that it can be drawn again elsewhere."""
