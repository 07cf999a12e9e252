"""The message reference has every field; links between pages hold, and nothing is loaded from another host."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import message_pages

ROOT = Path(__file__).resolve().parents[2]

INTERFACES = sorted((ROOT / "ros2_ws/src/wm_msgs").glob("*/*.*"))


@pytest.mark.parametrize("file", INTERFACES, ids=lambda file: file.stem)
def test_a_page_has_every_field_of_its_interface(file: Path) -> None:
    module = importlib.import_module(f"wm_msgs.{file.parent.name}")
    page = message_pages.page(file, {"SceneObject": "SceneObject.md"})
    assert page.startswith(f"# {file.stem}\n")
    for title, section in zip(message_pages.SECTIONS[file.suffix], page.split("\n## ")[1:], strict=True):
        whole = getattr(module, file.stem)
        message = whole if file.suffix == ".msg" else getattr(whole, title)
        rows = [line.split(" | ")[:2] for line in section.splitlines() if line.startswith("| `")]
        fields = {name.strip("| `"): kind for name, kind in rows if " = " not in name}
        assert list(fields) == list(message.get_fields_and_field_types())
        assert all("SceneObject.md" in kind for kind in fields.values() if "`SceneObject" in kind)


def test_comments_of_an_interface_are_the_text_of_its_page(tmp_path: Path) -> None:
    file = tmp_path / "wm_msgs/srv/Try.srv"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# Tries it.\nuint8 GO=1   # now\n\n# For `a|b` alone:\n"
        "float32[] x  # [K*3] m\n             # or _none_\n---\nbool ok\n"
    )
    assert message_pages.page(file, {}).split("\n\n")[:4] == ["# Try", "`wm_msgs/srv/Try`", "Tries it.", "## Request"]
    page = message_pages.page(file, {})
    assert "| `GO = 1` | `uint8` | now |" in page and "\nFor `a|b` alone:\n" in page
    assert r"| `x` | `float32[]` | \[K\*3\] m or \_none\_ |" in page
    assert "## Response\n\n| name | type | meaning |\n| --- | --- | --- |\n| `ok` | `bool` |  |" in page


@pytest.mark.parametrize("text", ["float32", "   # of nothing", "a b c d"])
def test_a_line_that_is_no_interface_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text.strip()):
        message_pages.parse(text)


def test_links_lead_to_pages_and_nothing_is_loaded_from_elsewhere() -> None:
    exceptions = pytest.importorskip("mkdocs.exceptions", reason="needs requirements/docs.txt (make docs)")
    import docs_hook

    def page(address: str) -> SimpleNamespace:
        return SimpleNamespace(file=SimpleNamespace(src_uri=address))

    readme = "![it](docs/images/demo.png) [how](docs/robot.md#cameras), [e](examples/), [ci](.ci/run), [no](docs/no.md)"
    assert docs_hook.on_page_markdown(readme, page("index.md")) == (
        "![it](images/demo.png) [how](robot.md#cameras), [e](examples/index.md), ci (`.ci/run`), [no](no.md)"
    )
    assert docs_hook.on_page_markdown("[up](../README.md)", page("robot.md")) == "[up](index.md)"
    assert docs_hook.on_page_markdown("[up](../README.md)", page("messages/Rollout.md")) == "[up](../README.md)"
    docs_hook.on_post_page('<a href="https://x.org">x</a><script src="assets/a.js"></script>', page("index.md"))
    for text in ('<script defer src="https://x.org/a.js">', "<img alt=b src=//x.org/b.png>"):
        with pytest.raises(exceptions.PluginError, match="loads <"):
            docs_hook.on_post_page(text, page("index.md"))
