"""Players: they publish a recording (a folder of RGB-D frames, or a bag) on the topics of a camera driver."""
