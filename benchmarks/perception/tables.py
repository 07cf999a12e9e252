"""The rows of the document, their aims, and the tables that people read."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.perception.sizes import sizes_table

SPLITS = ("seeds", "families", "household")
UNTRAINED = {"seeds": "untrained", "families": "untrained_families", "household": "untrained_household"}
"""Key of the pipeline without training, by split."""
Aims = tuple[float | None, float | None, float | None]


def _same(aim: float | None) -> Aims:
    """One aim on seeds and families, none on household objects."""
    return aim, aim, None


# Key, words, unit factor and unit, decimals, aims on the splits, whether more is better.
ROWS: tuple[tuple[str, str, float, str, int, Aims, bool], ...] = (
    ("found_share", "visible objects found", 1e2, "%", 1, (None, None, 0.97), True),
    ("phantoms_per_frame", "phantoms per frame", 1.0, "", 2, (None, None, 0.1), False),
    ("mask_ap50", "mask AP50", 1.0, "", 3, (0.92, 0.85, 0.90), True),
    ("mask_ap", "mask AP", 1.0, "", 3, (0.75, 0.70, 0.70), True),
    ("position_error_median_m", "position error, median", 1e3, "mm", 1, (0.008, 0.008, 0.006), False),
    ("position_error_p90_m", "position error, p90", 1e3, "mm", 1, (0.020, 0.020, 0.015), False),
    ("extents_error_median", "extents error, median", 1e2, "%", 1, (0.08, 0.08, 0.10), False),
    ("rotation_error_median_deg", "rotation error, median", 1.0, "deg", 1, _same(10.0), False),
    ("velocity_error_m_s", "velocity error at 0.5 m/s", 1.0, "m/s", 3, _same(0.05), False),
    ("idf1", "IDF1", 1.0, "", 3, (0.95, 0.95, 0.95), True),
    ("mota", "MOTA", 1.0, "", 3, _same(0.93), True),
    ("id_switches_per_1000", "id switches per 1000", 1.0, "", 2, _same(1.0), False),
    ("reid_after_2s", "same id after 2 s hidden", 1e2, "%", 0, _same(0.95), True),
    ("relations_macro_f1", "relations, macro F1", 1.0, "", 3, _same(0.92), True),
    ("events_f1", "events, F1 within 0.1 s", 1.0, "", 3, _same(0.90), True),
    ("property_spearman", "properties, Spearman", 1.0, "", 2, _same(0.70), True),
    ("property_coverage_90", "properties, 90 % interval", 1e2, "%", 0, _same(0.85), True),
    ("caused_f1", "caused, F1", 1.0, "", 3, _same(0.85), True),
    ("caused_f1_baseline", "... any earlier contact", 1.0, "", 3, _same(None), True),
    ("latency_median_s", "camera to graph, median", 1e3, "ms", 0, _same(0.060), False),
    ("latency_p95_s", "camera to graph, p95", 1e3, "ms", 0, _same(0.100), False),
    ("rate_hz", "scene graphs per second", 1.0, "Hz", 1, _same(15.0), True),
)
REAL_ROWS: tuple[tuple[str, str, float, str, int, float, bool], ...] = (
    ("mug_present", "mug present as one id", 1e2, "%", 1, 0.98, True),
    ("phantoms_per_frame", "phantoms per frame", 1.0, "", 2, 0.5, False),
    ("table_tilt_deg", "table plane tilt", 1.0, "deg", 2, 2.0, False),
)
COVERAGE_AT_MOST = 0.95
"""Upper end of the aim for 90 % intervals: wider ones hold the true value too often."""
KEYS = tuple(row[0] for row in ROWS)


def mark(value: float | None, aim: float | None, more: bool, key: str) -> str:
    """Style of a figure: green where the aim is reached."""
    if value is None or aim is None:
        return ""
    if key == "property_coverage_90":
        return "green" if aim <= value <= COVERAGE_AT_MOST else "red"
    return "green" if (value >= aim if more else value <= aim) else "red"


def measured_splits(document: dict[str, Any]) -> list[str]:
    """The splits that a document has figures of."""
    return [split for split in SPLITS if document.get(split)]


def acceptance_table(document: dict[str, Any]) -> Table:
    """Figure, aim and untrained pipeline on every split that was measured."""
    table = Table(title="Perception on worlds never seen in training", pad_edge=False)
    table.add_column("what")
    table.add_column("")
    splits = measured_splits(document)
    for split in splits:
        for head in (f"held-out {split}", "aim", "untrained"):
            table.add_column(head, justify="right")

    def cell(values: dict[str, Any] | None, key: str, factor: float, decimals: int) -> str:
        value = None if not values else values.get(key)
        return "-" if value is None else f"{factor * value:.{decimals}f}"

    for key, words, factor, unit, decimals, aims, more in ROWS:
        row = [words, unit]
        for split in splits:
            values, aim = document[split], aims[SPLITS.index(split)]
            beside = document.get(UNTRAINED[split])
            text = cell(values, key, factor, decimals)
            style = mark(values.get(key), aim, more, key)
            sign = "" if aim is None else ("≥ " if more else "≤ ")
            row.append(f"[{style}]{text}[/]" if style else text)
            row.append("" if aim is None else f"{sign}{factor * aim:.{decimals}f}")
            row.append(cell(beside, key, factor, decimals))
        table.add_row(*row)
    return table


def real_table(document: dict[str, Any]) -> Table:
    """The recorded clip."""
    table = Table(title="Recorded clip", pad_edge=False)
    for head in ("what", "", "measured", "aim", "untrained"):
        table.add_column(head, justify="left" if head in ("what", "") else "right")
    for key, words, factor, unit, decimals, aim, more in REAL_ROWS:
        value, beside = document["real_clip"].get(key), document["untrained_real_clip"].get(key)
        style = mark(value, aim, more, key)
        text = "-" if value is None else f"{factor * value:.{decimals}f}"
        table.add_row(
            words,
            unit,
            f"[{style}]{text}[/]" if style else text,
            f"{'≥' if more else '≤'} {factor * aim:.{decimals}f}",
            "-" if beside is None else f"{factor * beside:.{decimals}f}",
        )
    return table


def markdown(document: dict[str, Any]) -> str:
    """The tables and the notes as Markdown."""
    parts = []
    sizes = [sizes_table(document["sizes"])] if document.get("sizes") else []
    for table in (acceptance_table(document), *sizes, real_table(document)):
        cells = [[Text.from_markup(str(c)).plain for c in column.cells] for column in table.columns]
        header = [str(column.header) for column in table.columns]
        rows = [header, ["---"] * len(header), *zip(*cells, strict=True)]
        parts.append(f"**{table.title}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    parts += [f"- {note}" for note in document["notes"]]
    return "\n\n".join(parts) + "\n"
