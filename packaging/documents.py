"""Add the documents to a package: documents.py DIRECTORY

DIRECTORY is /usr/share/doc/postprox of the package, which has the examples already.

Rule: readers have the package and no checkout. So paths are those of the package, links point to
files of the package, and there are no instructions for the installation.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUIDES = (
    *("amavis", "check", "faq", "filters", "growing", "log", "migrating", "monitoring", "opendkim"),
    *("operating", "postfix", "reliability", "rspamd", "setup", "specification", "troubleshooting"),
)
DOCUMENTS = (
    *("README.md", "SECURITY.md", "docs/topology.svg"),
    *(f"docs/{name}.md" for name in GUIDES),
)

#: Paths of the package, by the path of a manual installation.
PATHS = {
    "/usr/local/sbin/postprox": "/usr/sbin/postprox",
    "/usr/local/lib/postprox{,-versions}/": "/usr/lib/postprox/",
    "/usr/local/bin/postprox-": "/usr/bin/postprox-",
}
#: Names of files in the package, if they differ from the checkout.
ELSEWHERE = {"LICENSE": "copyright", "packaging/README.md": "README.Debian"}

INSTALLED = """\
## Install

The package has installed the proxy, its units, the user `postprox` and the directory
`/var/spool/postprox`. Skip the commands below that create them.
[README.Debian](packaging/README.md) lists the steps in order. To see what the proxy does, run:

```sh
postprox-rehearse
```

"""
UPGRADING = """\
## Upgrading

    apt-get install postprox

The package creates its byte code and restarts the running services. They first finish the messages
in progress. Meanwhile, new clients wait at the socket, which stays open. Spawned proxies need no
restart, because each new session runs the new version. An upgrade of Python creates the byte code
again.

"""
#: Replaced parts of documents: the first heading, the following heading, the new text.
PARTS = {
    "README.md": ("## Try it", "## Example filter", INSTALLED),
    "docs/operating.md": ("## Upgrading", "## AppArmor and SELinux", UPGRADING),
}

_LINK = re.compile(r"(!?)\[([^]]*)\]\((?!\w+:|#)([^)#\s]+)([^)]*)\)")
_ITEM = re.compile(r"^- \[.*\n(?:  .*\n)*", re.MULTILINE)


def main(directory: Path) -> None:
    """Add the documents, and replace paths and links in all files of `directory`."""
    for name in DOCUMENTS:
        there = directory / name
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(packaged(name, (ROOT / name).read_text(encoding="utf-8")))
    for path in directory.glob("examples/**/*.*"):
        if path.is_file():
            path.write_text(with_paths(path.read_text(encoding="utf-8")))
    for path in directory.rglob("*.md"):
        path.write_text(with_links(path.read_text(encoding="utf-8"), path.parent, directory))


def packaged(name: str, text: str) -> str:
    """Return the text of a document for the package, with unchanged links."""
    if name in PARTS:
        first, following, instead = PARTS[name]
        before, found, rest = text.partition(f"{first}\n")
        _, found_too, after = rest.partition(f"{following}\n")
        if not (found and found_too):
            raise SystemExit(f"documents: {name}: missing {first!r} or {following!r}")
        text = f"{before}{instead}{following}\n{after}"
    return with_paths(text)


def with_paths(text: str) -> str:
    """Replace the paths of a manual installation."""
    for by_hand, packaged_path in PATHS.items():
        text = text.replace(by_hand, packaged_path)
    return text


def with_links(text: str, here: Path, directory: Path) -> str:
    """Adapt the links to files of the package, and replace other links by their text.

    A list item that starts with a link is removed if none of its links has a file in the package.
    """

    def there(file: str) -> Path | None:
        name = os.path.relpath(here / file, directory)
        target = directory / ELSEWHERE.get(name, name)
        return target if target.exists() or name in ELSEWHERE else None

    def item(found: re.Match[str]) -> str:
        targets = [there(link[3]) for link in _LINK.finditer(found[0])]
        return found[0] if any(targets) or not targets else ""

    def link(found: re.Match[str]) -> str:
        target = there(found[3])
        if target is None:
            return found[2]
        words = target.name if found[2].endswith("/") else found[2]
        return f"{found[1]}[{words}]({os.path.relpath(target, here)}{found[4]})"

    return _LINK.sub(link, _ITEM.sub(item, text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
