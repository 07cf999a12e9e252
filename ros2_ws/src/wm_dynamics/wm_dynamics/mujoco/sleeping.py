"""Bodies that sleep from the start of a stretch of MuJoCo's steps, and those that a body bears.

MuJoCo lets trees sleep that have come to rest, and wakes them when an awake one touches them. Its own way to let trees
sleep from the start (``mjSLEEP_INIT``) holds for the reference pose of a model alone, so the state of sleep is written
into MuJoCo's data here, as ``mj_updateSleep`` would derive it (MuJoCo's programming guide, "Sleeping islands").
"""

from __future__ import annotations

from collections.abc import Collection

import mujoco
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wm_dynamics.mujoco.bodies import Array
from wm_dynamics.mujoco.world import World

_ASLEEP = 0
"""``mjS_ASLEEP`` of ``mjtSleepState``; -1: static, 1: awake."""
STEEP = 0.3
"""Vertical component of a contact's normal from which on the upper body rests on the lower one: that of the learned
backend (``contact_step.sleeping.WAKE_STEEP``)."""


def begin_asleep(
    world: World, model: mujoco.MjModel, data: mujoco.MjData, packed: Array, asleep: Collection[int]
) -> None:
    """Let bodies sleep in freshly reset data, at a state (nstate,) in which their velocities are set to 0.

    What touches at the start is found first: MuJoCo keeps the contact sensors of what sleeps as they are. Bodies that
    touch one another sleep, and wake, together (MuJoCo's islands).
    """
    data.qpos[:] = packed[1 : 1 + model.nq]
    mujoco.mj_forward(model, data)
    data.qacc[:] = data.qacc_warmstart[:] = data.qacc_smooth[:] = data.qfrc_smooth[:] = 0.0
    bodies = np.array([world.body_ids[i] for i in asleep])
    for body in bodies.tolist():
        at = 1 + model.nq + int(model.body_dofadr[body])
        packed[at : at + 6] = 0.0
    trees = model.body_treeid[bodies]
    data.tree_awake[trees], data.body_awake[bodies] = 0, _ASLEEP
    pairs = np.sort(model.body_treeid[model.geom_bodyid[np.array(data.contact.geom)]], axis=1)
    pairs = pairs[np.isin(pairs, trees).all(axis=1) & (pairs[:, 0] != pairs[:, 1])]
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(model.ntree, model.ntree))
    _, island = connected_components(links, directed=False)
    for number in np.unique(island[trees]):
        # A cycle of the island's trees: each has the number of the next.
        members = trees[island[trees] == number]
        data.tree_asleep[members] = np.roll(members, -1)
    awake = np.flatnonzero(data.body_awake != _ASLEEP)
    parents = 1 + np.flatnonzero(data.body_awake[model.body_parentid[1:]] != _ASLEEP)
    dofs = np.flatnonzero(data.body_awake[model.dof_bodyid] == 1)
    data.nbody_awake, data.nparent_awake, data.nv_awake = len(awake), len(parents), len(dofs)
    data.body_awake_ind[: len(awake)] = awake
    data.parent_awake_ind[: len(parents)] = parents
    data.dof_awake_ind[: len(dofs)] = dofs
    data.ntree_awake = int(data.tree_awake.sum())


def still_asleep(world: World, data: mujoco.MjData, asleep: Collection[int]) -> frozenset[int]:
    """Those of bodies that slept at the start of a stretch that sleep at its end, too."""
    trees = world.model.body_treeid
    return frozenset(i for i in asleep if data.tree_asleep[trees[world.body_ids[i]]] >= 0)


def borne_by(world: World, model: mujoco.MjModel, data: mujoco.MjData, packed: Array, index: int) -> frozenset[int]:
    """Bodies that touch another one from above, at a state (nstate,)."""
    mujoco.mj_resetData(model, data)
    data.qpos[:] = packed[1 : 1 + model.nq]
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_collision(model, data)
    index_of = {body: i for i, body in enumerate(world.body_ids)}
    found = set()
    for c in range(data.ncon):
        contact = data.contact[c]
        a, b = (index_of.get(int(model.geom_bodyid[g]), -1) for g in (contact.geom1, contact.geom2))
        # The normal points from the first to the second.
        up = float(contact.frame[2])
        if a == index and up > STEEP and b >= 0:
            found.add(b)
        elif b == index and up < -STEEP and a >= 0:
            found.add(a)
    return frozenset(found)
