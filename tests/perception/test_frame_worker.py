"""The worker of two stages: newest item, order, overlap, drain, stop, and no item lost or done twice."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_perception.frame_worker import OVERLAP, FrameWorker, overlaps

PATIENCE_S = 10.0


class Stages:
    """Notes what begins and ends; each stage of an item waits for its gate, where it has one."""

    def __init__(self) -> None:
        self.gates: dict[tuple[str, int], threading.Event] = {}
        self.notes: list[tuple[str, int]] = []
        self.changed = threading.Condition()

    def gate(self, stage: str, item: int) -> threading.Event:
        return self.gates.setdefault((stage, item), threading.Event())

    def note(self, what: str, item: int) -> None:
        with self.changed:
            self.notes.append((what, item))
            self.changed.notify_all()

    def wait(self, what: str, item: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: (what, item) in self.notes, PATIENCE_S), (what, item, self.notes)

    def hold(self, stage: str, item: int, worker: FrameWorker) -> None:
        """Offer an item to a worker, and wait until it stands before the gate of a stage."""
        self.gate(stage, item)
        worker.offer(item)
        self.wait(stage, item)

    def _pass(self, stage: str, item: int) -> None:
        gate = self.gates.get((stage, item))
        assert gate is None or gate.wait(PATIENCE_S), f"{stage} of {item} was not let through"

    def first(self, item: int):
        self.note("begin", item)
        self._pass("first", item)

        def rest() -> None:
            self.note("second", item)
            self._pass("second", item)
            self.note("end", item)

        return rest


@pytest.fixture
def stages():
    found = Stages()
    yield found
    for gate in found.gates.values():
        gate.set()


def test_the_next_item_is_begun_while_the_last_is_finished(stages: Stages) -> None:
    worker = FrameWorker(stages.first)
    stages.hold("second", 1, worker)
    worker.offer(2)
    stages.wait("begin", 2)
    assert ("end", 1) not in stages.notes
    assert not worker.wait_until_idle(0.01)
    stages.gate("second", 1).set()
    assert worker.wait_until_idle(PATIENCE_S)
    ends = [note for note in stages.notes if note[0] in ("second", "end")]
    assert ends == [("second", 1), ("end", 1), ("second", 2), ("end", 2)]
    assert worker.stop(PATIENCE_S)


def test_without_overlap_an_item_is_finished_first(stages: Stages) -> None:
    worker = FrameWorker(stages.first, overlap=False)
    stages.hold("second", 1, worker)
    worker.offer(2)
    time.sleep(0.05)
    assert ("begin", 2) not in stages.notes
    stages.gate("second", 1).set()
    stages.wait("end", 2)
    assert stages.notes.index(("end", 1)) < stages.notes.index(("begin", 2))
    assert worker.stop(PATIENCE_S)


def test_what_is_left_of_an_item_runs_beside_the_next_first_stage_and_before_its_second(stages: Stages) -> None:
    def first(item: int):
        rest = stages.first(item)

        def left() -> None:
            stages.note("left", item)
            stages._pass("left", item)
            stages.note("done", item)

        return lambda: (rest(), left)[1]

    worker = FrameWorker(first, overlap=False)
    stages.hold("left", 1, worker)
    worker.offer(2)
    stages.wait("begin", 2)
    time.sleep(0.05)
    assert ("second", 2) not in stages.notes and not worker.wait_until_idle(0.01)
    stages.gate("left", 1).set()
    stages.wait("done", 2)
    assert stages.notes.index(("done", 1)) < stages.notes.index(("second", 2))
    assert worker.wait_until_idle(PATIENCE_S) and worker.stop(PATIENCE_S)


def test_of_what_waits_the_newest_is_taken_merged_with_what_it_replaces(stages: Stages) -> None:
    worker = FrameWorker(stages.first, merge=lambda old, new: old + new)
    stages.gate("first", 1)
    assert not worker.offer(1)
    stages.wait("begin", 1)
    assert not worker.offer(20)
    assert worker.offer(300)
    assert worker.offer(4000)
    stages.gate("first", 1).set()
    stages.wait("end", 4320)
    assert [item for what, item in stages.notes if what == "begin"] == [1, 4320]
    assert worker.stop(PATIENCE_S)


def test_no_item_is_begun_while_another_waits_between_the_stages(stages: Stages) -> None:
    worker = FrameWorker(stages.first)
    stages.gate("second", 1)
    for item in (1, 2):
        worker.offer(item)
        stages.wait("begin", item)
    worker.offer(3)
    time.sleep(0.05)
    assert ("begin", 3) not in stages.notes  # 1 is being finished, 2 waits for that
    stages.gate("second", 1).set()
    stages.wait("end", 3)
    assert worker.stop(PATIENCE_S)


def test_the_first_stage_can_wait_for_all_earlier_items(stages: Stages) -> None:
    def first(item: int):
        if item == 3:
            worker.drain()
            stages.note("drained", item)
        return stages.first(item)

    worker = FrameWorker(first)
    stages.hold("second", 1, worker)
    worker.offer(3)
    time.sleep(0.05)
    assert ("drained", 3) not in stages.notes
    stages.gate("second", 1).set()
    stages.wait("end", 3)
    assert stages.notes.index(("end", 1)) < stages.notes.index(("drained", 3))
    assert worker.stop(PATIENCE_S)


def test_the_first_stage_can_wait_for_what_is_left_of_earlier_items(stages: Stages) -> None:
    def first(item: int):
        if item == 2:
            worker.drain()
            stages.note("drained", item)
        rest = stages.first(item)
        return lambda: (rest(), lambda: stages._pass("left", item))[1]

    worker = FrameWorker(first, overlap=False)
    stages.gate("left", 1)
    worker.offer(1)
    stages.wait("end", 1)
    worker.offer(2)
    time.sleep(0.05)
    assert ("drained", 2) not in stages.notes
    stages.gate("left", 1).set()
    stages.wait("drained", 2)
    assert worker.wait_until_idle(PATIENCE_S) and worker.stop(PATIENCE_S)


def test_stopped_in_either_stage_or_in_a_drain_it_drops_what_waits_and_says_what_hangs(stages: Stages) -> None:
    def first(item: int):
        if item == 2:
            stages.note("begin", item)
            worker.drain()
        return stages.first(item)

    worker = FrameWorker(first)
    stages.hold("second", 1, worker)
    worker.offer(2)
    stages.wait("begin", 2)
    worker.offer(3)
    assert not worker.stop(0.05)  # the second stage hangs
    stages.gate("second", 1).set()
    assert worker.stop(PATIENCE_S)
    assert ("begin", 3) not in stages.notes and ("second", 2) not in stages.notes


@settings(max_examples=15, deadline=None)
@given(
    pauses=st.lists(st.floats(0.0, 0.004), min_size=1, max_size=25),
    first_s=st.floats(0.0, 0.003),
    second_s=st.floats(0.0, 0.003),
    overlap=st.booleans(),
)
def test_items_begun_are_finished_once_in_order_and_the_last_is_never_lost(pauses, first_s, second_s, overlap) -> None:
    begun: list[int] = []
    ended: list[int] = []

    def first(item: int):
        begun.append(item)
        time.sleep(first_s)

        def rest() -> None:
            time.sleep(second_s)
            ended.append(item)

        return rest

    worker = FrameWorker(first, overlap=overlap)
    passed_over = 0
    for item, pause_s in enumerate(pauses):
        passed_over += worker.offer(item)
        time.sleep(pause_s)
    assert worker.wait_until_idle(PATIENCE_S)
    assert ended == begun == sorted(begun)
    assert begun[-1] == len(pauses) - 1 and len(begun) + passed_over == len(pauses)
    assert worker.stop(PATIENCE_S)


@pytest.mark.parametrize(
    ("setting", "cores", "threads", "expected"),
    [
        ("auto", 2, 2, False),
        ("auto", 2, 1, True),
        ("auto", 1, 1, False),
        ("auto", 8, 2, True),
        ("always", 1, 4, True),
        ("never", 64, 1, False),
    ],
)
def test_stages_overlap_where_a_core_is_left_beside_the_network(setting, cores, threads, expected) -> None:
    assert setting in OVERLAP
    assert overlaps(setting, cores, threads) == expected
