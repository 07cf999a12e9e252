"""Installs wm_bringup as an ament_python package."""

from pathlib import Path

from setuptools import find_packages, setup


def files(pattern: str) -> list[str]:
    """Plain files that match a glob, relative to this folder, in a fixed order."""
    return sorted(str(path) for path in Path().glob(pattern) if path.is_file())


setup(
    name="wm_bringup",
    version="0.1.0",
    packages=find_packages(exclude=["test", "tests"]),
    package_data={"": ["*.yaml", "*.xml", "*.json", "*.html", "*.onnx", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/wm_bringup"]),
        ("share/wm_bringup", ["package.xml"]),
        ("share/wm_bringup/launch", files("launch/*")),
        ("share/wm_bringup/config", files("config/*")),
        ("share/wm_bringup/rviz", files("rviz/*")),
        ("share/wm_bringup/foxglove", files("foxglove/*")),
        ("share/wm_bringup/deploy", files("deploy/*")),
    ],
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.26",
        "scipy>=1.13",
        "opencv-python-headless>=4.11,<4.12",
        "pyyaml>=6",
        "typer>=0.15",
        "rich>=13",
        "av>=16",
        "mcap>=1.2",
        "rosbags>=0.11",
        "rerun-sdk>=0.22",
        "pillow>=11",
        "matplotlib>=3.10",
    ],
    zip_safe=True,
    maintainer="wm maintainers",
    maintainer_email="maintainers@wm.example",
    description="Launch files, configuration, RViz and Foxglove layouts, and the wm command.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "wm = wm_bringup.programs:wm",
            "lifecycle_manager = wm_bringup.programs:lifecycle_manager",
            "container = wm_bringup.programs:container",
        ]
    },
)
