"""Players of recordings: what a camera would publish, from a folder of RGB-D frames or from a bag."""
