"""Pages of the site that are files elsewhere in the tree, where people look for them first.

Links are written for the tree, where each page and its targets lie; on the site all pages lie side by side.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "devices.md": "hardware_profiles/README.md",
    "cluster.md": "cluster/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_LINK = re.compile(r"\]\((?P<path>[\w./-]+)(?P<anchor>#[\w-]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs with the pages that it found in `docs/`."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Called by mkdocs with the text of each page."""
    source = PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return with_site_links(markdown, source)


def with_site_links(markdown: str, source: str) -> str:
    """The text of the file `source`, a path in the tree, with its links as they are on the site.

    >>> with_site_links("[one](docs/job.md#keys), [two](cluster/README.md)", "README.md")
    '[one](job.md#keys), [two](cluster.md)'
    """
    pages = {path: page for page, path in PAGES.items()}

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"]))
        return f"]({pages.get(target, target.removeprefix('docs/'))}{link['anchor'] or ''})"

    return _LINK.sub(moved, markdown)
