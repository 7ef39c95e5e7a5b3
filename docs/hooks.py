"""What the site needs beyond MkDocs: pages from the top of the repository, links to code, nothing foreign."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

TOP: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK: Final = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_FETCHED: Final = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b[^>]*\brel=[\"']?(?:stylesheet|preconnect|icon)\b[^>]*\bhref=[\"']?(?:https?:)?//"
    r"|(?:@import|url\()\s*[\"']?(?:https?:)?//"
)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie at the top of the repository."""
    root = Path(config.config_file_path).parent
    for name, page in TOP.items():
        text = (root / name).read_text(encoding="utf-8")
        for picture in re.findall(r"!\[[^\]]*\]\(docs/([^)]+)\)", text):
            text = text.replace(f"(docs/{picture})", f"({picture})")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn a link that leads out of docs/ into one that leads to a page, or into the name of the file."""
    root = Path(config.config_file_path).parent
    here = page.file.src_uri
    source = {page: name for name, page in TOP.items()}.get(here, f"docs/{here}")

    def put(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (root / path).exists():
            raise PluginError(f"{source}: [{text}]({target}) leads nowhere")
        page_ = TOP.get(path) or path.removeprefix("docs/") if path.startswith("docs/") or path in TOP else ""
        if page_:
            return f"[{text}]({posixpath.relpath(page_, posixpath.dirname(here) or '.')}{anchor})"
        return text if text.strip("`") == path else f"{text} (`{path}`)"

    return _LINK.sub(put, markdown)


def on_post_build(config: Any) -> None:
    """Refuse a site that a browser would complete from somewhere else."""
    for path in Path(config.site_dir).rglob("*"):
        if path.suffix in (".html", ".css") and (found := _FETCHED.search(path.read_text(encoding="utf-8"))):
            raise PluginError(f"{path.name} fetches from outside: {found[0]}")
