"""From images to points over supports: working size, cloud, supports, gravity, registration of depth to color."""
