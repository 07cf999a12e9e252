"""Encodings of a camera's images, and RVL."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sensor_msgs.msg import CompressedImage, Image

from lens_images import encode_rvl, rvl_message
from traced_scene import make_scene, trace
from wm_core.rvl import decode_rvl
from wm_ros.images.compressed import compressed_to_depth, depth_to_compressed
from wm_ros.images.pixels import (
    ImageError,
    array_to_image,
    depth_to_millimeters,
    image_to_depth,
    image_to_rgb,
)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_gives_back_the_color_it_was_made_of(pattern: str, bits: int) -> None:
    color = np.zeros((12, 16, 3), np.uint8) + np.array([200, 120, 40], np.uint8)
    mosaic = np.zeros((12, 16), np.uint8)
    for place, letter in enumerate(pattern):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = color[row::2, column::2, "rgb".index(letter)]
    pixels = mosaic if bits == 8 else mosaic.astype(np.uint16) << 8
    found = image_to_rgb(array_to_image(pixels, f"bayer_{pattern}{bits}"))
    np.testing.assert_array_equal(found[2:-2, 2:-2], color[2:-2, 2:-2])


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "UYVY"), ("uyvy", "UYVY"), ("yuv422_yuy2", "YUYV")])
def test_yuv_422_with_padded_rows(encoding: str, order: str) -> None:
    y = np.array([[60, 60, 200, 200], [90, 90, 30, 30]])
    u, v = np.array([[100, 140], [128, 90]]), np.array([[150, 110], [128, 200]])
    rows = []
    for r in range(2):
        parts = []
        for pair in range(2):
            c = {"U": u[r, pair], "V": v[r, pair]}
            luma = iter(y[r, 2 * pair : 2 * pair + 2])
            parts += [next(luma) if letter == "Y" else c[letter] for letter in order]
        rows.append(bytes(int(p) for p in parts) + b"\xff\xff\xff")  # three bytes of padding
    msg = Image(encoding=encoding, width=4, height=2, step=11, data=b"".join(rows))
    found = image_to_rgb(msg).astype(float)
    # ITU-R BT.601, limited range.
    up, down = np.repeat(u, 2, axis=1) - 128.0, np.repeat(v, 2, axis=1) - 128.0
    luma = 1.164 * (y - 16.0)
    wanted = np.stack([luma + 1.596 * down, luma - 0.813 * down - 0.391 * up, luma + 2.018 * up], axis=-1)
    np.testing.assert_allclose(found, np.clip(wanted, 0, 255), atol=2.0)
    msg.width = 3
    with pytest.raises(ImageError, match="width 3, expected an even one"):
        image_to_rgb(msg)


def test_sixteen_bit_color_big_endian_and_alpha() -> None:
    color = (np.arange(2 * 3 * 4).reshape(2, 3, 4) * 2000).astype(np.uint16)
    msg = array_to_image(color, "bgra16")
    msg.data, msg.is_bigendian = color.astype(">u2").tobytes(), 1
    np.testing.assert_array_equal(image_to_rgb(msg), (color[..., 2::-1] >> 8).astype(np.uint8))
    gray = array_to_image(color[..., 0], "mono16")
    np.testing.assert_array_equal(image_to_rgb(gray)[..., 1], color[..., 0] >> 8)


def test_depth_in_another_unit() -> None:
    tenths = np.array([[10_000, 0, 65_535]], np.uint16)
    found = image_to_depth(array_to_image(tenths, "16UC1"), scale=0.0001)
    np.testing.assert_allclose(found, [[1.0, 0.0, 0.0]])
    millimeters = array_to_image(np.array([[1500.0, np.nan]], np.float32), "32FC1")
    np.testing.assert_allclose(image_to_depth(millimeters, scale=0.001), [[1.5, 0.0]])
    png = depth_to_compressed(np.array([[1.5, 0.0]]), form="compressedDepth")
    np.testing.assert_allclose(compressed_to_depth(png, scale=0.00025), [[0.375, 0.0]])


# RVL.


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.uint16,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.one_of(st.just(0), st.integers(0, 65_535), st.integers(900, 1100)),
    )
)
def test_rvl_gives_back_what_was_coded(depth: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_rvl(encode_rvl(depth), depth.shape[1], depth.shape[0]), depth)


def test_rvl_of_known_bytes() -> None:
    # 3 zeros, 2 measurements: 5 (zigzag 10, so A and 1) and 4 (difference -1, zigzag 1); 1 zero, 0 measurements.
    word = 0x32A11100
    depth = decode_rvl(struct.pack("<I", word), 6, 1)
    np.testing.assert_array_equal(depth, [[0, 0, 0, 5, 4, 0]])


def test_rvl_messages_of_a_camera_and_of_nonsense() -> None:
    depth = trace(make_scene())[1]
    found = compressed_to_depth(rvl_message(depth_to_millimeters(depth)))
    np.testing.assert_allclose(found, depth, atol=6e-4)
    good = bytes(rvl_message(depth_to_millimeters(depth)).data)
    for data, text in (
        (good[:-2000], "end"),
        (good[:16], "expected width and height"),
        (good[:12] + struct.pack("<2I", 65_536, 65_536) + good[20:], "65536x65536"),
        (good[:12] + struct.pack("<2I", 320, 100) + good[20:], "expected at most 32000"),
        (good[:20] + bytes(len(good)), "0 zeros and 0 measurements"),
        (good[:20] + b"\xff" * 400, "nibbles|end"),
    ):
        with pytest.raises(ImageError, match=text):
            compressed_to_depth(CompressedImage(format="16UC1; compressedDepth rvl", data=data), "/depth")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 40), st.integers(1, 40))
def test_rvl_of_any_bytes_is_an_image_or_a_refusal(data: bytes, width: int, height: int) -> None:
    try:
        assert decode_rvl(data, width, height).shape == (height, width)
    except ValueError as error:
        assert str(error).startswith("RVL: ")
