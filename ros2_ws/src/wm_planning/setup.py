"""Installs wm_planning as an ament_python package."""

from pathlib import Path

from setuptools import find_packages, setup


def files(pattern: str) -> list[str]:
    """Plain files that match a glob, relative to this folder, in a fixed order."""
    return sorted(str(path) for path in Path().glob(pattern) if path.is_file())


setup(
    name="wm_planning",
    version="0.1.0",
    packages=find_packages(exclude=["test", "tests"]),
    package_data={"": ["*.yaml", "*.xml", "*.json", "*.html", "*.onnx", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/wm_planning"]),
        ("share/wm_planning", ["package.xml"]),
    ],
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.26",
        "scipy>=1.13",
    ],
    zip_safe=True,
    maintainer="wm maintainers",
    maintainer_email="maintainers@wm.example",
    description="Planners that choose among imagined futures, without ROS.",
    license="Apache-2.0",
)
