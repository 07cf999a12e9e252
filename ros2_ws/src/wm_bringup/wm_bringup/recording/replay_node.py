"""The perception node with calls in place of its subscriptions and publishers: for a replay without the middleware."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wm_perception.node import PerceptionNode
from wm_perception.types import Frame, PerceptionResult


class _Output:
    """Stands for a publisher: hands on what is published."""

    def __init__(self, topic: str, receive: Callable[[Any], None] | None) -> None:
        self.topic_name = topic
        self._receive = receive

    def publish(self, message: Any) -> None:
        """Hand it on."""
        if self._receive is not None:
            self._receive(message)

    def get_subscription_count(self) -> int:
        """1 where there is a receiver; images without one are not drawn."""
        return int(self._receive is not None)


class ReplayNode(PerceptionNode):
    """The perception node, its subscriptions and publishers replaced by calls.

    Args:
        outputs: by topic, relative as the node names it, the receiver of its messages.

    Attributes:
        inputs: type and callbacks of what it has subscribed to, by topic.
        refusal: why it did not accept its parameters; last_frame: the last one that gave a scene graph.
    """

    def __init__(self, outputs: Mapping[str, Callable[[Any], None]], **kwargs: Any) -> None:
        self.inputs: dict[str, tuple[Any, list[Callable[[Any], None]]]] = {}
        self.refusal: Exception | None = None
        self.last_frame: Frame | None = None
        self._replaced = dict(outputs)
        super().__init__(**kwargs)

    def configure(self) -> None:
        """As the node does; keeps what it refuses for."""
        try:
            super().configure()
        except Exception as error:
            self.refusal = error
            raise

    def publish_images(self, frame: Frame, frame_id: str, result: PerceptionResult) -> None:
        """As the node does; keeps the frame."""
        self.last_frame = frame
        super().publish_images(frame, frame_id, result)

    def models(self) -> dict[str, str]:
        """What runs, by model."""
        from wm_perception.models.choice import chosen
        from wm_perception.models.files import SHIPPED

        return {name: str(chosen(name, self.params.pipeline)) for name in SHIPPED}

    def create_lifecycle_publisher(self, msg_type: Any, topic: str, *args: Any, **kwargs: Any) -> Any:
        """A call in place of a publisher."""
        return _Output(topic, self._replaced.get(topic))

    def destroy_lifecycle_publisher(self, publisher: Any) -> Any:
        """Nothing to destroy."""
        return True

    def create_subscription(self, msg_type: Any, topic: str, callback: Any, *args: Any, **kwargs: Any) -> Any:
        """The callback is kept in ``inputs``."""
        self.inputs.setdefault(topic, (msg_type, []))[1].append(callback)
        return _Output(topic, None)

    def destroy_subscription(self, subscription: Any) -> bool:
        """Nothing to destroy."""
        return True
