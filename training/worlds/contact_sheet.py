"""A picture of what is in a data set: `python -m training.worlds.contact_sheet out/data/train`.

Each row: color, depth (near is bright, black is not measured), instances, and the ground tracks of a clip from above
with those of its counterfactual sibling (dashed) and contacts (dots).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

COLORS = [tuple(float(v) for v in plt.get_cmap("tab20")(k)[:3]) for k in range(20)]


def instance_picture(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(h, w, 3) 0..1: the table gray, every object in a color of its own."""
    table = np.zeros((256, 3))
    table[1] = 0.35
    for number in range(2, 256):
        table[number] = COLORS[number % len(COLORS)]
    return table[mask]


def draw_tracks(axes: Any, group: Any) -> None:
    """Ground tracks [m] of everything that moves."""
    ids, states = group["ids"][()], group["states"][()]
    size = group.attrs["table_size_m"]
    axes.add_patch(plt.Rectangle((-0.5 * size[0], -0.5 * size[1]), size[0], size[1], fill=False, lw=0.8))
    for row, number in enumerate(ids):
        if number == 1:
            continue
        color = COLORS[int(number) % len(COLORS)]
        axes.plot(states[:, row, 0], states[:, row, 1], color=color, lw=1.2)
        axes.plot(*states[0, row, :2], "o", color=color, ms=3)
    if "siblings/0" in group:
        sibling = group["siblings/0"]
        other, present = sibling["states"][()], sibling["present"][()]
        for row, number in enumerate(ids):
            if number != 1 and present[0, row]:
                axes.plot(other[:, row, 0], other[:, row, 1], "--", color=COLORS[int(number) % len(COLORS)], lw=0.8)
        gone = json.loads(sibling.attrs["intervention"])["object"]
        axes.set_title(f"dashed: without {gone}", fontsize=6, pad=2)
    for time, a, b, began in group["touches"][()]:
        if began and min(a, b) > 1 and time > 0.0:
            k = min(int(time * 30), len(states) - 1)
            middle = 0.5 * (states[k, np.flatnonzero(ids == a)[0], :2] + states[k, np.flatnonzero(ids == b)[0], :2])
            axes.plot(*middle, "k.", ms=2)
    axes.set_aspect("equal")
    reach = 0.55 * float(np.max(size[:2])) + 0.1
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)


def contact_sheet(folder: Path, out: Path, rows: int = 6, columns: int = 2) -> None:
    """Writes the picture of the first clips of a folder of shards.

    Raises:
        FileNotFoundError: no shards there.
    """
    import h5py

    shards = sorted(folder.glob("clips_*.h5"))
    if not shards:
        raise FileNotFoundError(f"{folder}: found no shards (clips_*.h5), expected some; run: make data")
    figure, axes = plt.subplots(rows, 4 * columns, figsize=(2.1 * 4 * columns, 1.65 * rows), squeeze=False)
    cell = 0
    for shard in shards:
        with h5py.File(shard, "r") as file:
            for name in sorted(file):
                group = file[name]
                if "rgb" not in group or cell >= rows * columns:
                    continue
                row, first = cell % rows, 4 * (cell // rows)
                k = len(group["rgb"]) // 2
                depth = group["depth"][k].astype(float) * 1e-4
                axes[row, first].imshow(group["rgb"][k])
                axes[row, first].set_title(f"{folder.name} {name}", fontsize=6, pad=2)
                shown = np.where(depth > 0, 1.0 / np.maximum(depth, 0.2), 0.0)
                axes[row, first + 1].imshow(shown, cmap="magma", vmin=0.0)
                axes[row, first + 2].imshow(instance_picture(group["mask"][k]))
                draw_tracks(axes[row, first + 3], group)
                cell += 1
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    figure.tight_layout(pad=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of shards")
    parser.add_argument("--out", type=Path, help="picture (default: contact_sheet.png in the folder)")
    parser.add_argument("--rows", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--columns", type=int, default=2, help="default: %(default)s")
    arguments = parser.parse_args()
    out = arguments.out or arguments.folder / "contact_sheet.png"
    contact_sheet(arguments.folder, out, arguments.rows, arguments.columns)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
