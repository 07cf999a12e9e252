"""Installs wm_core as an ament_python package."""

from setuptools import find_packages, setup

setup(
    name="wm_core",
    version="0.1.0",
    packages=find_packages(exclude=["test", "tests"]),
    package_data={"": ["*.yaml", "*.xml", "*.json", "*.html", "*.onnx", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/wm_core"]),
        ("share/wm_core", ["package.xml"]),
    ],
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.26",
        "scipy>=1.13",
        "transforms3d>=0.4.2",
        "opencv-python-headless>=4.11,<4.12",
        "onnxruntime>=1.23",
        "onnx>=1.17",
        "packaging>=23",
    ],
    zip_safe=True,
    maintainer="wm maintainers",
    maintainer_email="maintainers@wm.example",
    description="ROS-free core of the wm world model: scene graph and rollouts as arrays, cameras, "
    "geometry, interventions, inference runtimes.",
    license="Apache-2.0",
)
