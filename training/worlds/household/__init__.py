"""Held-out table-tops with scanned and modelled household objects, for measuring alone: nothing is trained on them."""
