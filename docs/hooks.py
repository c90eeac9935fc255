"""What makes the site of mkdocs.yml from Markdown that is also read in a repository.

The README is the site's first page. A link to a file that is not on the site, such as a notebook or
a source file, becomes the file's name.
"""

import os
import pathlib
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = "index.md"

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the README as the first page."""
    text = (ROOT / "README.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, README, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Points links at the site's own pages, and names files that it does not hold."""
    folder = posixpath.dirname(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found["text"], found["target"], found["anchor"] or ""
        inside = posixpath.normpath(posixpath.join(folder, target))
        if inside in files.src_uris:
            return found[0]
        # The README, as a page, lies in docs/, but its links are relative to the root.
        path = inside.removeprefix("../")
        if path == "README.md":
            return f"[{text}]({posixpath.relpath(README, folder or '.')}{anchor})"
        if not os.path.lexists(ROOT / path):
            return found[0]  # for mkdocs to complain of
        return text if text == posixpath.basename(path) else f"{text} (`{path}`)"

    return _LINK.sub(link, markdown)
