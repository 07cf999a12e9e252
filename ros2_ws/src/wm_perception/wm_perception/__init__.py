"""RGB-D to a persistent 3D scene graph: segmentation, lifting, tracking, relations; and the node that does it live."""
