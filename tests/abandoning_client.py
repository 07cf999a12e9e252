"""A client of /wm/imagination that asks for minutes of work and waits; the tests end it while it does.

python tests/abandoning_client.py service|action
"""

from __future__ import annotations

import sys

import numpy as np
import rclpy
from rclpy.action import ActionClient
from wm_msgs.action import Imagine
from wm_msgs.srv import ImagineRollouts

from traced_scene import BALL, make_scene
from wm_core.interventions import impulse_batch
from wm_core.rollout import ImagineRequest, StatesWanted
from wm_ros.conversions.requests import request_to_msg

LONG = ImagineRequest(
    (),
    20.0,
    1.0,
    deadline_s=600.0,
    initial_state=make_scene(),
    batches=(impulse_batch(BALL, np.full((1000, 1, 3), 0.01)),),
    want_states=StatesWanted.FINAL,
    samples=8,
)


def main() -> None:
    """Ask, say so, wait for good."""
    rclpy.init()
    node = rclpy.create_node("abandoner", namespace="wm")
    msg = request_to_msg(LONG)
    if sys.argv[1] == "service":
        service = node.create_client(ImagineRollouts, "imagine_rollouts")
        service.wait_for_service()
    else:
        action = ActionClient(node, Imagine, "imagine")
        action.wait_for_server()
    try:
        while True:  # refused where another is being worked on
            if sys.argv[1] == "service":
                future = service.call_async(ImagineRollouts.Request(request=msg))
            else:
                sent = action.send_goal_async(Imagine.Goal(request=msg))
                rclpy.spin_until_future_complete(node, sent)
                future = sent.result().get_result_async()
            print("asked", flush=True)
            rclpy.spin_until_future_complete(node, future)
    except KeyboardInterrupt:
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
