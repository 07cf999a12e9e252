"""Imagined futures of a scene graph: rollouts, rendering, and the node that answers."""
