"""Reports of what was done: figures, pictures, video, one HTML page, a Rerun recording."""
