"""The dynamics network: one step of a world of rigid objects, with contacts that are learned.

What is known is built in, what is not is learned. Known: free flight, gravity, where two shapes are nearest, that a
contact pushes and never pulls, acts on both bodies with opposite impulses, and has no more friction than the cone
allows. So momentum is conserved, permuting objects permutes the answer, and turning the world about gravity turns it.
Learned: a network over each contact's own invariants (gap, approach, slip, masses, friction, restitution, how many
other contacts share the body) gives the law of that contact - how much of the violation each sweep of message passing
removes, how much bounces, how soft it is - and the scatter of the outcome. Messages between bodies are impulses: bodies
-> contacts (relative velocity) -> network -> bodies.

The formulas are those of ``wm_dynamics.contact_step.formulas``, over torch tensors (``training.dynamics.tensors``).
Contacts are computed from shape parameters and points of hulls, four for each object with the surface beneath it and
four for each near pair, so a shape not seen in training is an input like any other. Sources: impulses with
velocity-level constraints, Stewart and Trinkle 1996; Jacobi sweeps with mass splitting, Tonge, Benevolenski and
Voroshilov 2012.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.dynamics import tensors as tensors
from wm_dynamics.contact_step.array_step import Hulls, Stepped, StepWeights, step
from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.formulas.mechanics import rotation_of as rotation_of
from wm_dynamics.contact_step.records import FEATURES, LAW, SWEEPS, WIDTH


class ContactNetwork(nn.Module):
    """Weights of the law of a contact (``formulas.network``)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(width, FEATURES) / FEATURES**0.5)
        self.first_bias = nn.Parameter(torch.zeros(width, 1))
        self.second = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.second_bias = nn.Parameter(torch.zeros(width, 1))
        self.last = nn.Parameter(torch.zeros(LAW, width))
        self.last_bias = nn.Parameter(torch.zeros(LAW, 1))


class DynamicsStep(nn.Module):
    """One step of ``STEP_S``, as the module describes it.

    Attributes:
        step_s: length of a step [s]; sweeps: of message passing in it.
        network: the law of a contact; sweep_weights: (sweeps, 4) and deviation_floor: (2,), logarithms.
    """

    def __init__(self, width: int = WIDTH, sweeps: int = SWEEPS) -> None:
        super().__init__()
        self.step_s, self.sweeps = STEP_S, sweeps
        self.network = ContactNetwork(width)
        self.sweep_weights = nn.Parameter(torch.zeros(sweeps, 4))
        self.deviation_floor = nn.Parameter(torch.tensor([-9.0, -7.0]))

    def forward(
        self,
        position: Tensor,
        quaternion: Tensor,
        linear: Tensor,
        angular: Tensor,
        parameters: Tensor,
        plane: Tensor,
        pair_a: Tensor,
        pair_b: Tensor,
        hull_row: Tensor,
        hull_points: Tensor,
        plane_slack: Tensor,
        pair_slack: Tensor,
    ) -> Stepped:
        """One step.

        Args:
            position, linear, angular: (3, B); quaternion: (4, B) xyzw.
            parameters: (PARAMETER_ROWS, B), rows as in ``PARAMETERS``. plane: (PLANE_ROWS, B).
            pair_a, pair_b: (P,) int64 bodies of near pairs, the smaller one first.
            hull_row: (H,) int64 bodies that are hulls of hull_points (3, HULL_POINTS, H), body frame [m].
            plane_slack: (B,), pair_slack: (P,) depths [m] to which surfaces and pairs may overlap.
        """
        number = torch.zeros(position.shape[1], dtype=torch.int64, device=hull_row.device)
        number = number.scatter(0, hull_row, torch.arange(1, hull_row.shape[0] + 1, device=hull_row.device))
        weights = StepWeights(self.network, torch.exp(self.sweep_weights), torch.exp(self.deviation_floor))
        return step(
            (position, quaternion, linear, angular), parameters, plane, pair_a, pair_b,
            Hulls(hull_row, number, hull_points), (plane_slack, pair_slack), weights
        )  # fmt: skip
