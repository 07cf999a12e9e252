"""Pictures with text: a dark drawing, panels, anti-aliased curves, and an H.264 file of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

BACKGROUND: Color = (14, 18, 24)
PANEL: Color = (24, 30, 39)
LINE: Color = (54, 64, 79)
TEXT: Color = (233, 237, 242)
DIM: Color = (147, 158, 173)
IMAGINED: Color = (255, 176, 59)
TRUE: Color = (84, 204, 140)
STRAIGHT: Color = (126, 166, 255)
STILL: Color = (150, 155, 165)
WARN: Color = (255, 110, 100)


@lru_cache(maxsize=64)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, as matplotlib brings it: the same on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def text_width(text: str, size: int, bold: bool = False) -> int:
    """Width of one line of text [pixels]."""
    return int(np.ceil(font(size, bold).getlength(text)))


def shorten(text: str, width: int, size: int, bold: bool = False) -> str:
    """The text, or its beginning with an ellipsis, so that it fits."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(text + "…", size, bold) > width:
        text = text[:-1]
    return text.rstrip() + "…"


class Drawing:
    """A picture that is drawn on.

    Attributes:
        pixels: (H, W, 3) uint8, RGB.
    """

    def __init__(self, width: int = 1280, height: int = 720, color: Color = BACKGROUND) -> None:
        self.pixels: Picture = np.empty((height, width, 3), np.uint8)
        self.pixels[:] = color

    @classmethod
    def of(cls, pixels: Picture) -> Drawing:
        """A drawing with a copy of a picture."""
        drawing = cls.__new__(cls)
        drawing.pixels = pixels.copy()
        return drawing

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def box(self, x: int, y: int, width: int, height: int, color: Color = PANEL) -> None:
        """A filled rectangle."""
        self.pixels[max(y, 0) : y + height, max(x, 0) : x + width] = color

    def text(
        self, x: int, y: int, text: str, size: int = 18, color: Color = TEXT, bold: bool = False, anchor: str = "la"
    ) -> None:
        """One line; anchors as in PIL: l, m, r (left, middle, right) and a, m, s (top, middle, baseline)."""
        face = font(size, bold)
        left, top, right, bottom = (int(v) for v in face.getbbox(text, anchor=anchor))
        x0, y0 = x + left - 2, y + top - 2
        x1, y1 = x + right + 2, y + bottom + 2
        width, height = self.size
        cx0, cy0, cx1, cy1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if cx0 >= cx1 or cy0 >= cy1:
            return
        # Only the part that the text covers goes through PIL, as conversion costs time.
        part = Image.fromarray(self.pixels[cy0:cy1, cx0:cx1])
        ImageDraw.Draw(part).text((x - cx0, y - cy0), text, fill=color, font=face, anchor=anchor)
        self.pixels[cy0:cy1, cx0:cx1] = np.asarray(part)

    def image(self, x: int, y: int, picture: Picture, width: int, height: int) -> None:
        """A picture scaled to a size."""
        if picture.shape[1::-1] != (width, height):
            shrinks = picture.shape[1] > width
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        self.pixels[y : y + height, x : x + width] = picture

    def frame(self, x: int, y: int, width: int, height: int, color: Color, thickness: int = 2) -> None:
        """A rectangle's outline, just outside of it."""
        t = thickness
        self.box(x - t, y - t, width + 2 * t, t, color)
        self.box(x - t, y + height, width + 2 * t, t, color)
        self.box(x - t, y, t, height, color)
        self.box(x + width, y, t, height, color)

    def curve(self, points: NDArray[np.floating[Any]], color: Color, thickness: int = 2) -> None:
        """A line through points (P, 2) [pixels]; NaN interrupts it."""
        known = np.isfinite(points).all(axis=1)
        start = 0
        for end in [*np.flatnonzero(~known).tolist(), len(points)]:
            part = points[start:end]
            if len(part) > 1:
                fixed = np.round(part * 16.0).astype(np.int32).reshape(-1, 1, 2)
                cv2.polylines(self.pixels, [fixed], False, color, thickness, cv2.LINE_AA, 4)
            start = end + 1

    def dot(self, x: float, y: float, color: Color, radius: float = 4.0) -> None:
        """A filled circle."""
        cv2.circle(self.pixels, (round(x * 16), round(y * 16)), round(radius * 16), color, -1, cv2.LINE_AA, 4)


def fit(picture: Picture, width: int, height: int) -> tuple[int, int]:
    """The largest size with a picture's aspect within a box; even numbers."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    return int(picture.shape[1] * scale) // 2 * 2, int(picture.shape[0] * scale) // 2 * 2


class VideoWriter:
    """An MP4 file (H.264, yuv420p, which every browser plays). A context manager.

    Args:
        path: of the file.
        rate: frames per second.
        size: width and height [pixels], even.

    Attributes:
        count: frames written so far.
    """

    def __init__(self, path: Path, rate: int, size: tuple[int, int]) -> None:
        import av

        if size[0] % 2 or size[1] % 2:
            raise ValueError(f"video size: got {size[0]}x{size[1]}, expected even numbers")
        self.path, self.rate, self.count = path, rate, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._av = av
        self._container: Any = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"preset": "veryfast", "crf": "21"}
        self._stream.codec_context.thread_count = 2

    def add(self, picture: Picture, seconds: float | None = None) -> None:
        """Show a picture for one frame, or for a time."""
        repeats = 1 if seconds is None else max(1, round(seconds * self.rate))
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
            format="yuv420p"
        )
        for _ in range(repeats):
            frame.pts = self.count
            self.count += 1
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    @property
    def seconds(self) -> float:
        """Length of the video so far [s]."""
        return self.count / self.rate

    def close(self) -> None:
        """Finish the file."""
        if self._container is not None:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
            self._container.close()
            self._container = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._container is not None:
            self._container.close()
            self._container = None


def save_png(path: Path, picture: Picture) -> Path:
    """Write a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return path


def sheet(
    rows: Sequence[tuple[str, Sequence[Picture]]], columns: Sequence[str], width: int, label: int = 130
) -> Picture:
    """A contact sheet: labeled rows of pictures of one size under column headings, ``width`` pixels each picture."""
    first = rows[0][1][0]
    height = round(first.shape[0] * width / first.shape[1])
    gap, top = 6, 30
    drawing = Drawing(label + len(columns) * (width + gap), top + len(rows) * (height + gap))
    for c, heading in enumerate(columns):
        drawing.text(label + c * (width + gap) + width // 2, top // 2, heading, 14, DIM, anchor="mm")
    for r, (name, pictures) in enumerate(rows):
        y = top + r * (height + gap)
        drawing.text(12, y + height // 2, name, 15, TEXT, True, anchor="lm")
        for c, picture in enumerate(pictures):
            drawing.image(label + c * (width + gap), y, picture, width, height)
    return drawing.pixels
