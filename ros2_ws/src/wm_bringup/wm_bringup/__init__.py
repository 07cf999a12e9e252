"""Launch files, configuration, RViz and Foxglove layouts, and the wm command."""

__version__ = "0.1.0"
