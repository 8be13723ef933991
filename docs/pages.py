"""The hook of `mkdocs build` that collects the pages of the site (mkdocs.yml).

Rule: a page has the same path on the site as in the repository, so that links work in both. The
site also contains all files that the pages link to. Pictures are copied, and programs and
transcripts are shown as text. mandoc(1) generates the manual pages.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
#: The first pages. The pages that they link to follow.
FIRST = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")),
)
MANUAL = tuple(sorted(path.stem for path in ROOT.glob("man/*.1")))

_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
#: File types that a browser displays or requires.
_AS_IT_IS = (".svg", ".md")
_HEADING = re.compile(r'<h(\d) class="S[hs]" id="([^"]+)"><a[^>]*>(.*?)</a></h\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all pages of the repository, and the files that they link to."""
    for name in reachable(FIRST):
        path = ROOT / name
        if path.suffix in _AS_IT_IS:
            files.append(File.generated(config, name, abs_src_path=str(path)))
        else:
            shown = File.generated(config, f"{name}.md", content=as_text(name))
            shown.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(shown)
    for name in MANUAL:
        files.append(File.generated(config, f"man/{name}.1.md", content=manual_page(name)))
    return files


def on_page_markdown(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links to programs and transcripts with links to the pages that show them."""
    here = Path(page.file.src_uri).parent

    def shown(link: re.Match[str]) -> str:
        there = os.path.normpath(here / link[1])
        return f"{link[1]}.md" if files.get_file_from_path(f"{there}.md") else link[1]

    return _LINK.sub(shown, text)


def reachable(names: Iterable[str]) -> list[str]:
    """Return the files, and all files in the repository that their pages link to."""
    found: dict[str, None] = {}
    ahead = list(names)
    while ahead:
        name = ahead.pop(0)
        if name not in found:
            found[name] = None
            ahead += [target for target in links(name) if (ROOT / target).is_file()]
    return list(found)


def links(name: str) -> list[str]:
    """Return the files that a page links to, with paths relative to the root."""
    if not name.endswith(".md"):
        return []
    text = (ROOT / name).read_text(encoding="utf-8")
    return [os.path.normpath(Path(name).parent / link) for link in _LINK.findall(text)]


def as_text(name: str) -> str:
    """Return a page that shows a file."""
    language = {".py": "python", ".sh": "sh"}.get(Path(name).suffix, "text")
    text = (ROOT / name).read_text(encoding="utf-8")
    return f"# {Path(name).name}\n\n`{name}`:\n\n````{language}\n{text.rstrip()}\n````\n"


def manual_page(name: str) -> str:
    """Return a manual page as HTML, with headings in Markdown for the table of contents."""
    command = ["mandoc", "-T", "html", "-O", "fragment", str(ROOT / f"man/{name}.1")]
    try:
        html = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise PluginError(
            f"the manual pages require mandoc (Debian's package mandoc): {error}"
        ) from None
    body = html.partition('<div class="manual-text">')[2].rpartition("</div>\n<table")[0]
    body = re.sub(r"</?section[^>]*>\n?", "", body)
    body = _HEADING.sub(_heading, body)
    body = re.sub(r'<a class="Xr">([\w-]+)\((\d)\)</a>', _reference, body)
    head = f"---\ntitle: {name}(1)\n---\n# {name}(1)\n"
    return f'{head}\n<div class="manual" markdown>\n{body}\n</div>\n'


def _heading(found: re.Match[str]) -> str:
    words = " ".join(found[3].split())
    return f"\n{'#' * (int(found[1]) + 1)} {words}\n"


def _reference(found: re.Match[str]) -> str:
    page = f"{found[1]}({found[2]})"
    return f'<a href="../{found[1]}.1/">{page}</a>' if found[1] in MANUAL else page
