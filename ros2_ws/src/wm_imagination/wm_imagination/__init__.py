"""Imagined futures of a scene graph: interventions, rollouts, rendering; and the node that answers what-if questions."""
