"""Builds own_segmenter.onnx: an instance segmenter that is not wm's, as an example of one's own.

    python build_model.py own_segmenter.onnx

It has no weights. It finds the table as the dominant plane (a plane's inverse depth is linear in the image; least
squares with Cauchy weights, repeated), takes what lies in front of it, and parts that where depth or chromaticity
jumps, by spreading labels over connected pixels until nothing changes. All of it is ONNX operators, so that ONNX
Runtime runs it as it would run a network.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.parser
from onnx import numpy_helper

HEIGHT, WIDTH = 240, 320
"""Size of the input [pixels]; wm scales images to it. Larger finds smaller objects and is slower."""
CLASSES = ("red object", "green object", "blue object", "gray object")

MODEL = f"""
<ir_version: 9, opset_import: ["" : 17]>
own_segmenter (float[1, 3, {HEIGHT}, {WIDTH}] rgb, float[1, 1, {HEIGHT}, {WIDTH}] depth)
    => (float[n, {HEIGHT}, {WIDTH}] masks, float[n] scores, int64[n] labels, float[n, 3] embeddings)
<
    float one = {{1.0}}, float nearest = {{0.1}},
    int64 plane_rounds = {{12}}, float plane_scale = {{0.02}},
    int64[2] to_row = {{1, -1}}, int64[2] to_column = {{-1, 1}}, int64[1] to_flat = {{-1}},
    int64[4] to_image = {{1, 1, {HEIGHT}, {WIDTH}}}, int64[2] to_colors = {{3, -1}},
    float[3, 1, 3] columns = {{1, 0, 0, 0, 1, 0, 0, 0, 1}},
    float in_front = {{0.012}}, float depth_jump = {{0.025}}, float color_jump = {{0.16}}, float half = {{0.5}},
    int64 rounds = {{400}}, int64 rim_rounds = {{3}}, int64 least = {{60}}, float enough = {{150.0}},
    int64[3] to_masks = {{-1, {HEIGHT}, {WIDTH}}}, int64[2] flat_masks = {{-1, {HEIGHT * WIDTH}}},
    int64[3] to_ids = {{-1, 1, 1}}, float vivid = {{0.06}},
    int64[1] from_one = {{1}}, int64[1] to_end = {{1000000}}, bool yes = {{1}}
>
{{
    # Inverse depth, and where there is any.
    known = Greater(depth, nearest)
    weight_known = Cast <to = 1> (known)
    safe = Where(known, depth, one)
    inverse_all = Div(one, safe)
    inverse = Mul(inverse_all, weight_known)

    # The plane a u + b v + c that most of it lies on.
    d = Reshape(inverse, to_column)
    known_row = Reshape(weight_known, to_row)
    ground_transposed = Transpose(ground)
    first = Identity(known_row)
    plane_weight, plane = Loop <body = refit (int64 k, bool on, float[1, p] w, float[3, 1] old)
            => (bool go_on, float[1, p] w_out, float[3, 1] solution) {{
        weighted = Mul(ground_transposed, w)
        normal = MatMul(weighted, ground)
        right = MatMul(weighted, d)
        # Cramer's rule: each column of the matrix in turn replaced by the right side.
        others = Sub(one, columns)
        keep = Mul(normal, others)
        put = Mul(right, columns)
        replaced = Add(keep, put)
        parts = Det(replaced)
        whole = Det(normal)
        quotient = Div(parts, whole)
        solution = Reshape(quotient, to_column)
        fitted = MatMul(ground, solution)
        miss = Sub(d, fitted)
        relative = Div(miss, fitted)
        scaled = Div(relative, plane_scale)
        square = Mul(scaled, scaled)
        damped = Add(square, one)
        cauchy = Div(one, damped)
        cauchy_row = Reshape(cauchy, to_row)
        w_out = Mul(cauchy_row, known_row)
        go_on = Identity(on)
    }}> (plane_rounds, yes, first, no_plane)

    # In front of it.
    table_flat = MatMul(ground, plane)
    table = Reshape(table_flat, to_image)
    nearer = Sub(inverse, table)
    lead = Mul(table, in_front)
    standing = Greater(nearer, lead)
    seen = And(standing, known)
    in_front_of_plane = Cast <to = 1> (seen)

    # Edges: where depth jumps, or color regardless of brightness.
    far_of = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (safe)
    minus = Neg(safe)
    minus_near = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (minus)
    span = Add(far_of, minus_near)
    allowed = Mul(safe, depth_jump)
    torn = Greater(span, allowed)
    smooth = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (rgb)
    brightness_raw = ReduceSum(smooth, axis_channel)
    brightness = Max(brightness_raw, nearest)
    chroma = Div(smooth, brightness)
    chroma_high = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (chroma)
    minus_chroma = Neg(chroma)
    chroma_low = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (minus_chroma)
    chroma_span = Add(chroma_high, chroma_low)
    chroma_most = ReduceMax <axes = [1]> (chroma_span)
    painted = Greater(chroma_most, color_jump)
    edge = Or(torn, painted)
    no_edge = Not(edge)
    inner = And(seen, no_edge)
    core = Cast <to = 1> (inner)

    # Every inner pixel starts with a label of its own; the largest wins its connected region.
    start = Mul(numbers, core)
    spread = Loop <body = grow (int64 k2, bool on2, float[1, 1, h, w] l)
            => (bool changed, float[1, 1, h, w] l_out) {{
        wide = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (l)
        l_out = Mul(wide, core)
        step = Sub(l_out, l)
        most = ReduceMax <keepdims = 0> (step)
        changed = Greater(most, half)
    }}> (rounds, yes, start)
    # The pixels on edges go to a neighbor.
    final = Loop <body = fill (int64 k3, bool on3, float[1, 1, h, w] m)
            => (bool more, float[1, 1, h, w] m_out) {{
        around = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (m)
        free = Less(m, half)
        filled = Where(free, around, m)
        m_out = Mul(filled, in_front_of_plane)
        more = Identity(on3)
    }}> (rim_rounds, yes, spread)

    # One mask for each label with enough pixels; label 0 is first, and is no object.
    labels_flat = Reshape(final, to_flat)
    padded = Concat <axis = 0> (background, labels_flat)
    ids_all, where_first, which, counts_all = Unique <sorted = 1> (padded)
    ids_objects = Slice(ids_all, from_one, to_end)
    counts_objects = Slice(counts_all, from_one, to_end)
    large = GreaterOrEqual(counts_objects, least)
    ids = Compress <axis = 0> (ids_objects, large)
    counts = Compress <axis = 0> (counts_objects, large)
    ids_column = Reshape(ids, to_ids)
    image = Reshape(final, to_masks)
    same = Equal(image, ids_column)
    masks = Cast <to = 1> (same)

    # The more pixels the surer.
    sizes = Cast <to = 1> (counts)
    sizes_more = Add(sizes, enough)
    ratio = Div(sizes, sizes_more)
    scores = Sqrt(ratio)

    # Mean color, which also says the class.
    rows = Reshape(masks, flat_masks)
    colors = Reshape(rgb, to_colors)
    colors_transposed = Transpose(colors)
    sums = MatMul(rows, colors_transposed)
    sizes_column = Reshape(sizes, to_column)
    embeddings = Div(sums, sizes_column)
    mean = ReduceMean <axes = [1]> (embeddings)
    tint = Sub(embeddings, mean)
    strongest = ReduceMax <axes = [1]> (tint)
    dull_by = Sub(vivid, strongest)
    dull_tint = Add(dull_by, strongest)
    tints = Concat <axis = 1> (tint, dull_tint)
    labels = ArgMax <axis = 1, keepdims = 0> (tints)
}}
"""


def build(path: Path) -> Path:
    """Write the model, with its metadata.

    Raises:
        onnx.checker.ValidationError: it is no valid ONNX model.
    """
    model = onnx.parser.parse_model(MODEL)
    # Tables are easier made here than written out.
    v, u = np.meshgrid(np.linspace(-1.0, 1.0, HEIGHT), np.linspace(-1.0, 1.0, WIDTH), indexing="ij")
    tables = {
        "ground": np.stack([u.ravel(), v.ravel(), np.ones(HEIGHT * WIDTH)], axis=1).astype(np.float32),
        "numbers": np.arange(1, HEIGHT * WIDTH + 1, dtype=np.float32).reshape(1, 1, HEIGHT, WIDTH),
        "no_plane": np.zeros((3, 1), np.float32),
        "background": np.zeros(1, np.float32),
        "axis_channel": np.array([1], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tables.items())
    facts = {"vocabulary": json.dumps(CLASSES), "score_threshold": "0.5", "mask_threshold": "0.5"}
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python build_model.py own_segmenter.onnx")
    print(f"written: {build(Path(sys.argv[1]))}")
