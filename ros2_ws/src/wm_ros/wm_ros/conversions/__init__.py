"""Conversions between the core's dataclasses and messages; they need the messages' Python classes and no rclpy."""
