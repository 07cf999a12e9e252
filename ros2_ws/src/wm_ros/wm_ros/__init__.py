"""rclpy glue shared by the wm nodes: lifecycle base, QoS profiles, parameters, image messages, transforms."""
