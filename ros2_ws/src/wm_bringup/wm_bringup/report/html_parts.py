"""Parts of a report in one HTML file: pictures and video inside, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2

from wm_bringup.report.drawing import Picture

MAX_EMBEDDED_VIDEO_BYTES = 24_000_000
"""A larger video stays beside the page: inside, browsers take seconds to open the page."""
_STYLE = """
:root { color-scheme: light; --ink: #17202b; --dim: #5b6775; --line: #dfe4ea; --accent: #d97706; --true: #16875a; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink);
  background: #fff; }
header { background: #0e1218; color: #e9edf2; padding: 44px 0 36px; }
header p { color: #aeb8c4; max-width: 760px; margin: 8px 0 0; }
main, header > div, footer { max-width: 1120px; margin: 0 auto; padding: 0 28px; }
h1 { font-size: 34px; line-height: 1.2; margin: 0; }
h2 { font-size: 24px; margin: 52px 0 10px; }
h3 { font-size: 19px; margin: 36px 0 4px; }
h3 small { font-weight: 400; color: var(--dim); font-size: 15px; }
p.note, figcaption, .dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; margin: 14px 0; font-variant-numeric: tabular-nums; font-size: 15px; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom; }
th { font-weight: 600; color: var(--dim); font-size: 13.5px; }
th:first-child, td:first-child { text-align: left; }
td.best { font-weight: 700; color: var(--accent); }
td.left, th.left { text-align: left; }
td { white-space: nowrap; }
td.left { white-space: normal; }
td.left:first-child { white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; margin: 26px 0 8px; }
.tile { border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; }
.tile span { color: var(--dim); font-size: 14px; }
figure { margin: 14px 0; }
img, video { max-width: 100%; height: auto; display: block; border-radius: 6px; }
video { width: 100%; background: #0e1218; }
svg { width: 100%; height: auto; }
.narrow table { max-width: 620px; }
code { font: 14px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; background: #f1f4f7; padding: 1px 5px;
  border-radius: 4px; }
.warn { border-left: 4px solid #d97706; background: #fff7ec; padding: 8px 14px; margin: 10px 0; }
.scroll { overflow-x: auto; }
footer { color: var(--dim); padding-top: 30px; padding-bottom: 60px; font-size: 14px; }
"""


def page(title: str, lead: str, body: Sequence[str]) -> str:
    """A whole HTML document; ``title`` and ``lead`` are plain text, ``body`` is HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>"
        f"<header><div><h1>{escape(title)}</h1><p>{escape(lead)}</p></div></header><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A table of HTML cells; ``left`` columns are flush left. A cell that starts with * is emphasized."""
    head = "".join(f'<th class="{"left" if n in left else ""}">{cell}</th>' for n, cell in enumerate(headings))
    lines = []
    for row in rows:
        cells = ""
        for n, cell in enumerate(row):
            classes = ["left"] if n in left else []
            if cell.startswith("*"):
                classes.append("best")
                cell = cell[1:]
            cells += f'<td class="{" ".join(classes)}">{cell}</td>'
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def picture_html(picture: Picture | Path, caption: str = "", quality: int = 86) -> str:
    """A figure with a picture inside (as JPEG)."""
    if isinstance(picture, Path):
        loaded = cv2.imread(str(picture), cv2.IMREAD_COLOR)
        if loaded is None:
            return ""
        picture = loaded[..., ::-1]
    ok, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        return ""
    text = base64.b64encode(data.tobytes()).decode()
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><img alt="{escape(caption or "picture")}" width="{picture.shape[1]}" height="{picture.shape[0]}" '
        f'src="data:image/jpeg;base64,{text}">{below}</figure>'
    )


def video_html(video: Path, page_folder: Path) -> str:
    """A player with the video inside, or beside the page where it is large."""
    if not video.exists():
        return ""
    if video.stat().st_size <= MAX_EMBEDDED_VIDEO_BYTES:
        source = "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()
    else:
        source = escape(os.path.relpath(video, page_folder))
    return f'<figure><video controls muted playsinline preload="metadata" src="{source}"></video></figure>'


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """The main figures, as (figure, what it is)."""
    inner = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(what)}</span></div>' for v, what in values)
    return f'<div class="tiles">{inner}</div>'


def svg_of(figure: Any) -> str:
    """A matplotlib figure as an inline SVG."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    text = buffer.getvalue()
    # Without matplotlib's metadata, whose date would differ from run to run.
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
