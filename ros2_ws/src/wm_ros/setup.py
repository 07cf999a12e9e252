"""Installs wm_ros as an ament_python package."""

from setuptools import find_packages, setup

setup(
    name="wm_ros",
    version="0.1.0",
    packages=find_packages(exclude=["test", "tests"]),
    package_data={"": ["*.yaml", "*.xml", "*.json", "*.html", "*.onnx", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/wm_ros"]),
        ("share/wm_ros", ["package.xml"]),
    ],
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.26",
        "opencv-python-headless>=4.11,<4.12",
    ],
    zip_safe=True,
    maintainer="wm maintainers",
    maintainer_email="maintainers@wm.example",
    description="rclpy glue shared by the wm nodes: lifecycle base, QoS profiles, parameters, image "
    "messages, transforms.",
    license="Apache-2.0",
)
