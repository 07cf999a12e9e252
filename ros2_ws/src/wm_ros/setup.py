"""Installs wm_ros as an ament_python package; version and description are those of package.xml."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

manifest = ElementTree.parse(Path(__file__).resolve().with_name("package.xml"))

setup(
    name="wm_ros",
    version=manifest.findtext("version"),
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
        "scipy>=1.13",
    ],
    zip_safe=True,
    maintainer="wm maintainers",
    maintainer_email="maintainers@wm.example",
    description=manifest.findtext("description"),
    license=manifest.findtext("license"),
)
