"""Installs wm_bringup as an ament_python package; version and description are those of package.xml."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup


def files(pattern: str) -> list[str]:
    """Plain files that match a glob, relative to this folder, in a fixed order."""
    return sorted(str(path) for path in Path().glob(pattern) if path.is_file())


manifest = ElementTree.parse(Path(__file__).resolve().with_name("package.xml"))

setup(
    name="wm_bringup",
    version=manifest.findtext("version"),
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
    description=manifest.findtext("description"),
    license=manifest.findtext("license"),
    entry_points={
        "console_scripts": [
            "wm = wm_bringup.programs:wm",
            "lifecycle_manager = wm_bringup.programs:lifecycle_manager",
            "container = wm_bringup.programs:container",
        ]
    },
)
