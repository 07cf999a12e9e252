"""Random worlds: objects, textures, simulation, and the data set drawn of them."""
