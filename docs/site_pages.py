"""Pages of the site that are made from other files: the README, the changelog, and the docstrings."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not files below docs/."""
    for name, page in _TOP.items():
        files.append(File.generated(config, page, content=_moved((ROOT / name).read_text())))
    for page, content in _notebook(ROOT / "docs/tutorial.ipynb").items():
        files.append(File.generated(config, page, content=content))
    for page, text in api_pages().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links from a page of docs/ to the files at the top."""
    for name, page in _TOP.items():
        markdown = markdown.replace(f"(../{name}", f"({page}")
    return markdown


def _moved(text: str) -> str:
    text = re.sub(r"\]\(docs/", "](", text)
    for name, page in _TOP.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text


def _notebook(path: Path) -> dict[str, str | bytes]:
    """A notebook as a page with its outputs, and its pictures."""
    found: dict[str, str | bytes] = {}
    parts = [f"[The notebook]({path.name})\n"]
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            else:
                picture = f"{path.stem}-{len(found)}.png"
                found[picture] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![Output of the cell above]({picture})")
    parts.insert(0, parts.pop(1))  # the heading comes first
    return {**found, f"{path.stem}.md": "\n\n".join(parts) + "\n"}


def on_config(config: Any) -> Any:
    """The API pages in the navigation."""
    config.nav.append({"API": [{name: page} for page, name in _api_names().items()]})
    return config


def _packages() -> dict[str, Path]:
    """Each package by its name."""
    found = sorted(path.parent for path in (ROOT / "ssl_audio").rglob("__init__.py"))
    return {".".join(path.relative_to(ROOT).parts): path for path in found}


def _api_names() -> dict[str, str]:
    return {f"api/{name}.md": name.removeprefix("ssl_audio.") for name in _packages()}


def api_pages() -> dict[str, str]:
    """One page for each package: its public modules in order, each with what its docstrings say."""
    pages = {}
    for name, folder in _packages().items():
        modules = sorted(path.stem for path in folder.glob("*.py") if not path.name.startswith("_"))
        blocks = [f"# {name}", *(f"::: {name}.{module}" for module in modules)]
        if name == "ssl_audio":
            blocks.insert(1, "::: ssl_audio")
        pages[f"api/{name}.md"] = "\n\n".join(blocks) + "\n"
    return pages
