"""Pieces of one object: what was seen of it, votes for one object or two, departures by color."""

import numpy as np
import pytest

from seen_objects import seen_frame, segment
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.lifting.cloud import make_cloud
from wm_perception.tracking import visibility
from wm_perception.tracking.association import Matching, is_fragment
from wm_perception.tracking.births import born
from wm_perception.tracking.one_or_two import OneOrTwo
from wm_perception.tracking.pieces import count_pieces, joined, remember, share_on, share_under

EYE = np.array([-0.62, 0.0, 0.6])
HEAD, HANDLE = (0.1, 0.2, 0.7, 1.0), (0.8, 0.1, 0.1, 1.0)
PARTS = [
    GeomDef(Shape.BOX, np.array([0.08, 0.05, 0.04]), np.array([0.0, 0.0, 0.02]), color=HEAD),
    GeomDef(Shape.BOX, np.array([0.02, 0.12, 0.02]), np.array([0.0, 0.085, 0.02]), color=HANDLE),
]
NEIGHBOR = GeomDef(Shape.BOX, np.array([0.04, 0.04, 0.04]), np.array([0.0, -0.07, 0.02]), color=HANDLE)
NO_KEYS = np.full(2, -1, np.int64)


def seen(parts):
    frame, which = seen_frame(parts, EYE)
    cloud = make_cloud(frame, 1, 4.0)
    return cloud, [piece(cloud, which == k + 1) for k in range(len(parts))]


def piece(cloud, mask):
    o = segment(cloud.points[mask].astype(float))
    o.color = cloud.rgb[mask].mean(axis=0).astype(float)
    o.pixels = int(mask.sum())
    return o


def hammer():
    """The cloud, the two pieces, and a track that has seen both as one segment."""
    cloud, (head, handle) = seen(PARTS)
    whole = joined([head, handle])
    t = born(whole, 1, [], EYE, 0)
    t.id = 1
    remember(t, whole, cloud, anew=True)
    return cloud, head, handle, t


def test_pieces_lie_on_what_was_seen_and_neighbors_do_not():
    _, head, handle, t = hammer()
    _, (_, _, neighbor) = seen([*PARTS, NEIGHBOR])
    assert share_on(t, head) > 0.95 and share_on(t, handle) > 0.95
    assert share_on(t, neighbor) < 0.1
    assert share_under(t, joined([head, handle])) > 0.95
    assert 0.4 < share_under(t, head) < 0.9


def test_what_was_seen_whole_stays_one_object_when_its_mask_splits():
    _, head, handle, t = hammer()
    assert t.appearance.distance(handle) > 1.0, "the case is about pieces that do not look alike"
    for _ in range(5):
        count_pieces(t, joined([head, handle]), in_pieces=False)
    matching = Matching([t], [head, handle])
    matching.solve(NO_KEYS, 1.0 / 15.0)
    assert matching.assigned.tolist() == [0, 0]
    assert matching.in_pieces == {0}
    both = matching.by_track[0]
    assert both.pixels == head.pixels + handle.pixels
    assert both.extent == pytest.approx(joined([head, handle]).extent)


def test_what_was_merged_at_first_is_told_apart_in_the_end():
    _, head, handle, t = hammer()
    held = 0
    for _ in range(3):
        count_pieces(t, joined([head, handle]), in_pieces=False)
    while is_fragment(t, head, handle):
        count_pieces(t, joined([head, handle]), in_pieces=True)
        held += 1
        assert held < 100
    assert held > 2 * 3


def test_a_neighbor_is_no_piece():
    _, _, _, t = hammer()
    _, (head, handle, neighbor) = seen([*PARTS, NEIGHBOR])
    matching = Matching([t], [joined([head, handle]), neighbor])
    matching.solve(NO_KEYS, 1.0 / 15.0)
    assert matching.assigned.tolist() == [0, -1]
    assert not matching.in_pieces


def two_tracks():
    cloud, (head, handle) = seen(PARTS)
    tracks = []
    for key, o in enumerate((head, handle), start=1):
        tracks.append(born(o, key, [], EYE, 0))
        tracks[-1].id = key
        remember(tracks[-1], o, cloud, anew=True)
    return joined([head, handle]), tracks


def test_two_tracks_under_one_segment_become_one_by_votes():
    whole, tracks = two_tracks()
    votes, frames = OneOrTwo(), 0
    one = []
    while not one:
        matching = Matching(tracks, [whole], votes)
        matching.solve(NO_KEYS[:1], 1.0 / 15.0)
        one = matching.one
        frames += 1
        assert frames < 40
    assert frames >= 6
    assert set(one[0]) == {0, 1}


def test_what_has_moved_alone_is_never_one_with_what_has_not():
    _, (a, b) = two_tracks()
    votes = OneOrTwo()
    for _ in range(50):
        votes.covered(a, b)
    assert votes.are_one(a, b)
    a.motion.moved = True
    assert not votes.are_one(a, b)


def test_frames_apart_outweigh_frames_as_one():
    _, (a, b) = two_tracks()
    votes = OneOrTwo()
    votes.covered(a, b)
    for _ in range(20):
        votes.apart({a.key: a, b.key: b})
    for _ in range(20):
        votes.covered(a, b)
    assert not votes.are_one(a, b)
    votes.forget([a])
    for _ in range(6):
        votes.covered(a, b)
    assert votes.are_one(a, b), "votes of tracks that are gone do not count"


def test_a_flat_thing_that_has_left_is_seen_by_color():
    flat = GeomDef(Shape.BOX, np.array([0.15, 0.15, 0.006]), np.array([0.0, 0.0, 0.003]), color=HANDLE)
    other = GeomDef(Shape.BOX, np.array([0.04, 0.04, 0.04]), np.array([0.0, -0.25, 0.02]), color=HEAD)
    cloud, (o, _) = seen([flat, other])
    empty, _ = seen([other])
    t = born(o, 1, [], EYE, 0)
    t.id = 1
    remember(t, o, cloud, anew=True)
    for now, gone in ((cloud, 0), (empty, 1)):
        t.visibility.seen_now = False
        t.visibility.empty_frames = 0
        visibility.update_visibility([t], now, 1.0 / 15.0, scored=True)
        assert t.visibility.fraction > 0.6
        assert t.visibility.empty_frames == gone
