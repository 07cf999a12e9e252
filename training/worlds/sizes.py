"""What sizes things of a class have: `python -m training.worlds.sizes` writes the table of perception's size prior.

Sizes are those of the homeware families as drawn (with their part of primitives), standing or lying as the worlds put
them, so nothing of what is measured with is in it. The table is the module wm_perception/shapes/size_table.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.worlds import families
from training.worlds.families import VOCABULARY
from training.worlds.homeware.catalog import FAMILIES, choose
from wm_sim.objects import centered

PRIMITIVES = 0.12
"""Part of the things that are primitives, as in the worlds of ``training.worlds.homeware.scenes``."""
LIES = 0.25
"""How often what can lie does, as there."""
DRAWS = 3000
"""Things that are drawn from the families; classes that lack some by then have primitives alone, as balls do."""
PER_CLASS = 40
"""Things of each class in the table. More say no more, as sizes are continuous and few, for a larger file."""
_FILE = Path(__file__).resolve().parents[2] / "ros2_ws/src/wm_perception/wm_perception/shapes/size_table.py"
_HEAD = '''"""Sizes of things by class: written by `python -m training.worlds.sizes`, not by hand."""

SIZES_MM: dict[str, tuple[tuple[int, int, int], ...]] = {
'''


def drawn_sizes(seed: int, per_class: int) -> dict[str, list[tuple[int, int, int]]]:
    """Longer and shorter level size, and height [mm], of things as they rest, by class; "object": of no class."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[int, int, int]]] = {name: [] for name in (*VOCABULARY, "object")}
    for number in range(2 * DRAWS):
        # Primitives are drawn fast.
        primitive = number >= DRAWS or rng.uniform() < PRIMITIVES
        drawn = families.draw(families.TRAINING, rng)[1] if primitive else FAMILIES[choose(rng)].draw(rng)
        sizes = found[drawn.class_name if drawn.class_name in found else "object"]
        if len(sizes) >= per_class:
            continue
        x, y, z = (round(1e3 * float(v)) for v in centered(list(drawn.parts))[1])
        if not drawn.stands or (drawn.lies and rng.uniform() < LIES):
            x, z = z, x
        sizes.append((max(x, y), min(x, y), z))
    return {name: sorted(sizes) for name, sizes in found.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m training.worlds.sizes", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=_FILE, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    lines = [_HEAD]
    for name, sizes in drawn_sizes(arguments.seed, PER_CLASS).items():
        lines.append(f'    "{name}": (\n')
        texts = [f"({a}, {b}, {c})" for a, b, c in sizes]
        lines += [f"        {', '.join(texts[k : k + 6])},\n" for k in range(0, len(texts), 6)]
        lines.append("    ),\n")
    lines += [
        "}\n",
        '"""Longer and shorter level size, and height [mm], of things as they rest, by class; "object": no class."""\n',
    ]
    arguments.out.write_text("".join(lines), encoding="utf-8")
    print(f"written: {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
