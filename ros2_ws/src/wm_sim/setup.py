"""Installs wm_sim as an ament_python package; version and description are those of package.xml."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup


def files(pattern: str) -> list[str]:
    """Plain files that match a glob, relative to this folder, in a fixed order."""
    return sorted(str(path) for path in Path().glob(pattern) if path.is_file())


manifest = ElementTree.parse(Path(__file__).resolve().with_name("package.xml"))

setup(
    name="wm_sim",
    version=manifest.findtext("version"),
    packages=find_packages(exclude=["test", "tests"]),
    package_data={"": ["*.yaml", "*.xml", "*.json", "*.html", "*.onnx", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/wm_sim"]),
        ("share/wm_sim", ["package.xml"]),
        ("share/wm_sim/scenes", files("scenes/*")),
        ("share/wm_sim/worlds", files("worlds/*")),
        ("share/wm_sim/config", files("config/*.yaml")),
    ],
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.26",
        "scipy>=1.13",
        "opencv-python-headless>=4.11,<4.12",
        "mujoco>=3.17,<4",
        "pydantic>=2.10",
        "pyyaml>=6",
    ],
    zip_safe=True,
    maintainer="wm maintainers",
    maintainer_email="maintainers@wm.example",
    description=manifest.findtext("description"),
    license=manifest.findtext("license"),
    entry_points={
        "console_scripts": [
            "sim_camera_node = wm_sim.main:main",
        ]
    },
)
