"""Launch files, configuration, RViz and Foxglove layouts, and the wm command."""
