"""What mkdocs.yml cannot say: pages that lie outside docs/, pages made from sources, and the links between them."""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from message_pages import page as message_page

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "ros2_ws/src"
# Where what lies elsewhere in the repository goes: glob -> folder of the site. A README is the index of its folder.
ELSEWHERE = {
    "README.md": "",
    "CHANGELOG.md": "",
    "CONTRIBUTING.md": "",
    "examples/README.md": "examples",
    "ros2_ws/src/*/models/*.md": "models",
    "ros2_ws/src/*/models/*.png": "models",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^\"'\s>]*")


def site_address(path: Path, folder: str) -> str:
    """Where a file of the repository lies in the site."""
    name = "index.md" if path.name == "README.md" else path.name.lower()
    return posixpath.join(folder, name)


def addresses() -> dict[str, str]:
    """Pages and pictures from elsewhere: path in the repository -> address in the site."""
    found = {}
    for pattern, folder in ELSEWHERE.items():
        for path in sorted(ROOT.glob(pattern)):
            found[path.relative_to(ROOT).as_posix()] = site_address(path, folder)
    return found


def generated() -> tuple[dict[str, str], dict[str, list[Any]]]:
    """Contents of the pages made from sources by address; and their navigation: Examples, Messages, Python."""
    pages: dict[str, str] = {}
    navigation: dict[str, list[Any]] = {"Examples": ["examples/index.md"], "Messages": [], "Python": []}
    for example in sorted((ROOT / "examples").glob("*.py")):
        text = example.read_text()
        title = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0].rstrip(".")
        pages[f"examples/{example.stem}.md"] = f"# {title}\n\n```python\n{text}```\n"
        navigation["Examples"].append({title.partition(":")[0]: f"examples/{example.stem}.md"})
    interfaces = [f for kind in ("msg", "srv", "action") for f in sorted((SOURCES / "wm_msgs" / kind).glob("*.*"))]
    known = {interface.stem: f"{interface.stem}.md" for interface in interfaces}
    for interface in interfaces:
        pages[f"messages/{interface.stem}.md"] = message_page(interface, known)
        navigation["Messages"].append({interface.stem: f"messages/{interface.stem}.md"})
    for package in sorted(SOURCES.glob("*/*/__init__.py")):
        navigation["Python"].append({package.parent.name: python_pages(package.parent, pages)})
    return pages, navigation


def python_pages(folder: Path, pages: dict[str, str]) -> list[Any]:
    """Adds a page for every public module below a folder of Python; returns their navigation."""
    name = folder.relative_to(SOURCES / folder.relative_to(SOURCES).parts[0]).as_posix()
    pages[f"python/{name}/index.md"] = f"::: {name.replace('/', '.')}\n"
    entries: list[Any] = [f"python/{name}/index.md"]
    for path in sorted(folder.iterdir(), key=lambda p: (p.is_file(), p.name)):
        if path.name.startswith("_"):
            continue
        if (path / "__init__.py").exists():
            entries.append({path.name: python_pages(path, pages)})
        elif path.suffix == ".py":
            pages[f"python/{name}/{path.stem}.md"] = f"::: {name.replace('/', '.')}.{path.stem}\n"
            entries.append({path.stem: f"python/{name}/{path.stem}.md"})
    return entries


def on_config(config: MkDocsConfig) -> None:
    """Puts the generated pages into the navigation."""
    _, navigation = generated()
    assert config.nav is not None
    for section in config.nav:
        for entry in section.get("Start", ()):
            if "Examples" in entry:
                entry["Examples"] = navigation["Examples"]
        section.get("Messages", []).extend(navigation["Messages"])
    config.nav.append({"Python": navigation["Python"]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages that do not lie in docs/."""
    for path, address in addresses().items():
        files.append(File.generated(config, address, abs_src_path=str(ROOT / path)))
    for address, content in generated()[0].items():
        files.append(File.generated(config, address, content=content))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turns links between files of the repository into links between pages, or into their paths where there is none."""
    known = addresses()
    own = {address: path for path, address in known.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(own), target))
        address = known.get(path) or known.get(f"{path}/README.md")
        if address is None and path.startswith("docs/"):
            address = path.removeprefix("docs/")
        if address is None:
            # One that leads nowhere is left for mkdocs to refuse.
            return f"{text} (`{path}`)" if (ROOT / path).exists() else found[0]
        return f"{picture}[{text}]({posixpath.relpath(address, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    if page.file.src_uri.startswith(("messages/", "python/")):
        return markdown
    return _LINK.sub(link, markdown)


def on_post_page(output: str, page: Page, **_: object) -> None:
    """Refuses a page that loads anything from another host."""
    loaded = _LOADED.findall(output)
    if loaded:
        raise PluginError(f"{page.file.src_uri}: loads {loaded[0]}; expected nothing from another host")
