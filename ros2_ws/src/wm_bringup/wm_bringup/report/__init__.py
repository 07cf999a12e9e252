"""Reports of demonstrations and recorded clips: figures, pictures, video, one HTML page, a Rerun recording."""
