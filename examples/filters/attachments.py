#!/usr/bin/python3 -IS
"""Reject programs as attachments: by each of their names, in archives, uuencoded.

Needs:  Python 3.
Use:    --strict -c /usr/local/bin/attachments.py
        or to take some of them:
        --strict -c {/usr/local/bin/attachments.py --allow .xlsm --allow .7z}
Down:   there is no scanner. A message that cannot be read is a failure: 451.

Names are looked at, contents are not: this is no virus scanner, it stands before one. A part's name
is in two fields, and mail programs differ in which they use; so both count, however they are
encoded. Zip, tar, gzip, bzip2 and xz archives are opened, within each other, too. What cannot be
looked into is rejected: other archives, archives in archives without end, messages in pieces. Word
and Excel files with macros are programs; if you get many from people that you know, allow them.
"""

from __future__ import annotations

import binascii
import bz2
import email
import email.errors
import email.header
import email.utils
import gzip
import io
import lzma
import os
import re
import sys
import tarfile
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import IO

PASS, REJECT, FAIL = 0, 1, 2
Opened = IO[bytes] | io.BufferedIOBase

# What Windows runs, or what something else there runs by a click.
PROGRAMS = """
.ade .adp .apk .app .appcontent-ms .application .appref-ms .appx .appxbundle .bat .chm .cmd .com
.cpl .diagcab .dll .exe .gadget .hlp .hta .inf .ins .isp .jar .jnlp .js .jse .lib .library-ms .lnk
.mde .msc .msi .msix .msixbundle .msp .mst .pif .pl .ppkg .ps1 .ps1xml .ps2 .psc1 .psd1 .psm1 .py
.pyc .pyw .pyz .pyzw .reg .scf .scr .sct .search-ms .searchconnector-ms .settingcontent-ms .sh .shb
.shs .sys .theme .themepack .url .vb .vbe .vbp .vbs .vxd .website .wsc .wsf .wsh .xbap .xll .xnk
"""
# Disks that open by a click: what is in them has lost the mark of where it came from.
DISKS = ".img .iso .vhd .vhdx"
# Documents with programs in them.
MACROS = ".docm .dotm .one .onepkg .ppam .potm .ppsm .pptm .sldm .wll .xlam .xlsm .xltm"
UNWANTED = frozenset((PROGRAMS + DISKS + " " + MACROS).split())
# Archives that cannot be opened here: where their mark stands, and the mark.
OPAQUE = {
    ".7z": (0, b"7z\xbc\xaf\x27\x1c"),
    ".ace": (7, b"**ACE**"),
    ".arj": (0, b"\x60\xea"),
    ".cab": (0, b"MSCF"),
    ".iso": (32769, b"CD001"),
    ".lzh": (2, b"-lh5-"),
    ".rar": (0, b"Rar!\x1a\x07"),
    ".zst": (0, b"\x28\xb5\x2f\xfd"),
}
STREAMS: dict[bytes, tuple[tuple[str, ...], Callable[[IO[bytes]], Opened]]] = {
    b"\x1f\x8b": ((".gz", ".tgz"), lambda file: gzip.GzipFile(fileobj=file)),
    b"BZh": ((".bz2", ".tbz2", ".tbz"), bz2.open),
    b"\xfd7zXZ\x00": ((".xz", ".txz"), lzma.open),
}
# Nobody sends more in good faith: archives in archives, names, octets of what is unpacked.
DEEPEST, MOST_NAMES, LARGEST = 4, 10_000, 50_000_000

# What the libraries say of an archive that is broken, or made so that nobody can look into it.
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    OSError,
    EOFError,
    NotImplementedError,
    ValueError,
)
ARCHIVES = frozenset((".zip", ".tar", *OPAQUE, *(s for end, _ in STREAMS.values() for s in end)))
MARKS = ((0, b"PK"), (257, b"ustar"), *OPAQUE.values(), *((0, mark) for mark in STREAMS))
# How much of a file shows whether it is an archive.
HEAD = 512
# The bit of a zip archive's flags.
ENCRYPTED = 1
UUENCODED = re.compile(rb"(?m)^begin(?:-base64)? [0-7]{3,4} ([^\r\n]+)\r?\n")


class RefusedError(Exception):
    """The message is not taken; the text says why."""


class Policy:
    """What one message may hold."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self.unwanted = UNWANTED - allowed
        self.allowed = allowed
        self.names = 0
        self.octets = 0

    def message(self, message: Message) -> None:
        """Look at a parsed message."""
        for part in message.walk():
            if part.get_content_type() in ("message/partial", "message/external-body"):
                raise RefusedError("We take no messages in pieces")
            names = list(part_names(part))
            for name in names:
                self.name(name)
            if part.is_multipart():
                if str(part["content-transfer-encoding"]).strip().lower() == "base64":
                    raise RefusedError("We take no parts hidden in encoded parts")
                # Before and behind the parts, where some mail programs look for uuencoded files.
                for text in (part.preamble, part.epilogue):
                    self.uuencoded((text or "").encode("utf-8", "surrogateescape"))
                continue
            content = part.get_payload(decode=True)
            if isinstance(content, bytes):
                self.content(names[0] if names else "", content, 1)
                self.uuencoded(content)

    def name(self, name: str) -> None:
        """Look at a file's name."""
        self.names += 1
        if self.names > MOST_NAMES:
            raise RefusedError("We take no archives with so many files")
        # Windows ignores blanks and dots at the end of a name, and a stream's name behind it.
        for shown in (name, re.sub(r":[^\\/]*$", "", name)):
            if suffix(shown.rstrip(" .\t\0\"'")) in self.unwanted:
                raise RefusedError(f"We take no programs as attachments: {harmless(name)}")

    def content(self, name: str, content: bytes, depth: int) -> None:
        """Look into a file, if it is an archive."""
        for kind, (at, mark) in OPAQUE.items():
            if content.startswith(mark, at) and kind not in self.allowed:
                raise RefusedError(f"We take no archives that cannot be opened: {harmless(name)}")
        for mark, (suffixes, opened) in STREAMS.items():
            if content.startswith(mark):
                self.stream(name, suffixes, opened(io.BytesIO(content)), depth)
        if content[257:262] == b"ustar":
            self.tar(content, depth)
        elif zipfile.is_zipfile(io.BytesIO(content)):
            self.zip(content, depth)

    def stream(self, name: str, suffixes: tuple[str, ...], file: Opened, depth: int) -> None:
        """Look into one compressed file."""
        inner = name[: name.rindex(".")] if suffix(name) in suffixes else name
        self.name(inner)
        self.member(inner, file, depth)

    def tar(self, content: bytes, depth: int) -> None:
        """Look into a tar archive."""
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                self.name(member.name)
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    self.member(member.name, file, depth)

    def zip(self, content: bytes, depth: int) -> None:
        """Look into a zip archive; the names can be read even if the rest is encrypted."""
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                name = member.filename
                self.name(name)
                if not member.flag_bits & ENCRYPTED:
                    self.member(name, archive.open(member), depth)
                elif suffix(name) in ARCHIVES - self.allowed:
                    raise RefusedError("We take no encrypted archives in archives")

    def member(self, name: str, file: Opened, depth: int) -> None:
        """Look into a file of an archive, if it is one itself."""
        if depth >= DEEPEST:
            raise RefusedError("We take no archives in archives without end")
        content = file.read(HEAD)
        if suffix(name) not in ARCHIVES and not any(content.startswith(m, at) for at, m in MARKS):
            return
        content += file.read(LARGEST - self.octets + 1)
        self.octets += len(content)
        if self.octets > LARGEST:
            raise RefusedError("We take no archives so large")
        self.content(name, content, depth + 1)

    def uuencoded(self, text: bytes) -> None:
        """Look for uuencoded files."""
        for found in UUENCODED.finditer(text):
            name = found[1].decode("utf-8", "replace")
            self.name(name)
            self.content(name, uudecoded(text[found.end() :]), 1)


def suffix(name: str) -> str:
    """Return the end of a name from its last dot on, in lower case."""
    return "." + name.rpartition(".")[2].lower()


def part_names(part: Message) -> Iterator[str]:
    """Yield each name that a part has; a field may be there twice."""
    for field, parameter in (("content-disposition", "filename"), ("content-type", "name")):
        for value in part.get_all(field, []):
            alone = Message()
            alone[field] = str(value)
            name = alone.get_param(parameter, header=field)
            if name is not None:
                yield decoded(email.utils.collapse_rfc2231_value(name))


def decoded(name: str) -> str:
    """Return a name in plain text; as it is, if it is encoded wrongly."""
    try:
        return str(email.header.make_header(email.header.decode_header(name)))
    except (LookupError, UnicodeError, email.errors.HeaderParseError):
        return name


def uudecoded(text: bytes) -> bytes:
    """Return the octets of uuencoded lines, as far as they are right."""
    octets = io.BytesIO()
    for line in text.splitlines():
        try:
            octets.write(binascii.a2b_uu(line))
        except binascii.Error:
            break
        if line in (b"end", b"`", b""):
            break
    return octets.getvalue()


def harmless(name: str) -> str:
    """Return a name fit for a reply: a stranger chose it."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in name)[-60:]


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    allowed = {arguments[at + 1].lower() for at in range(0, len(arguments) - 1, 2)}
    if arguments[::2] != ["--allow"] * len(allowed):
        print("attachments.py: give nothing, or --allow .SUFFIX for each", file=sys.stderr)
        return FAIL
    message = Path(os.environ["EMAIL"]).read_bytes()
    try:
        Policy(frozenset(allowed)).message(email.message_from_bytes(message))
    except RefusedError as why:
        print("550 5.7.1", why, file=sys.stderr)
        return REJECT
    except (RecursionError, *BROKEN) as error:
        print(
            f"550 5.7.1 We take no archives that are broken: {type(error).__name__}",
            file=sys.stderr,
        )
        return REJECT
    return PASS


if __name__ == "__main__":
    try:
        STATUS = main(sys.argv[1:])
    except Exception:
        # Python's own status after a traceback is 1, which would reject the message.
        traceback.print_exc()
        STATUS = FAIL
    sys.exit(STATUS)
