"""Corrects a command line that the proxy rejects, without dropping an option.

Rule: each function depends only on the words of the command line. Each step corrects the word that
the parser's error names. If the intended word is unknown, the command line remains uncorrected.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ..core.address import UpstreamAddress
from ..core.options import TABLE, Options, UsageError, parse
from .scripts.shell_command import TYPOGRAPHIC, without_lost_reply, without_lost_status

#: The maximum number of errors that are corrected in one command line.
_MOST_ERRORS = 8
#: The minimum similarity to an option name at which a word is probably a misspelling of that name.
_SIMILAR = 0.8
#: Options that print information and exit are never suggested as corrections.
_NAMES = [name for _, name, _, _, _, scope, _ in TABLE if scope != "information"]
_LETTERS = {letter: name for letter, name, _, _, _, _, _ in TABLE if letter and name in _NAMES}
_WITH_VALUE = {name for _, name, argument, _, _, _, _ in TABLE if argument}
#: The filter and the time limit of the packaged options file.
_FILTER, _TIMEOUT = "/usr/local/bin/mail-filter", "60"
_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(
    r"=?([0-9]+(?:[.,][0-9]+)?)\s*([a-z]*?)(?:onds?|utes?|ours?|s)?[.,;:]?", re.IGNORECASE
)
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]+", re.ASCII)


def is_accepted(words: Sequence[str]) -> bool:
    """Return whether the proxy accepts the arguments and serves clients."""
    try:
        return not parse(words).information
    except UsageError:
        return False


def corrected(words: Sequence[str], target: str) -> list[str]:
    """Return the arguments without typing errors, or [] if the intended arguments are unknown.

    `target` is the HOST:PORT that is used if the intended one is unknown.
    """
    now = plain(words)
    for _ in range(_MOST_ERRORS):
        try:
            found = parse(now)
        except UsageError as error:
            changed = _changed(now, str(error), target)
            if changed is None:
                return []
            now = changed
        else:
            return [] if found.information else now
    return []


def plain(words: Sequence[str]) -> list[str]:
    """Replace the typographic dashes, spaces and quotes that a word processor inserts."""
    text = "\0".join(words).replace("\u00a0", "\0")
    text = re.sub(f"[{TYPOGRAPHIC}]", "", text)
    text = re.sub("(^|\0)-?[\u2013\u2014]([A-Za-z])(?=\0|$)", r"\1-\2", text)
    return re.sub("(^|\0)-?[\u2013\u2014][\u2013\u2014-]*", r"\1--", text).split("\0")


def quoted_filter(words: Sequence[str]) -> list[str]:
    """Return the arguments with the whole filter command quoted as one word.

    The result is empty if the quoting does not correct the command line.
    """
    for index in (i for i, word in enumerate(words) if word in ("-c", "--command")):
        for end in range(index + 3, len(words)):
            command = " ".join(words[index + 1 : end]).strip("{}'\"")
            candidate = [*words[: index + 1], command, *words[end:]]
            if is_accepted(candidate):
                kept = without_lost_reply(without_lost_status(command))
                return [*words[: index + 1], kept, *words[end:]]
    return []


def without_equals(words: Sequence[str]) -> list[str]:
    """Remove the equals sign between -c or -d and its value."""
    kept = [re.sub("^(-[rv]*[cd])=", r"\1", word) for word in words]
    for index, word in enumerate(kept[:-1]):
        if re.fullmatch("-[rv]*[cd]", word):
            kept[index + 1] = kept[index + 1].removeprefix("=")
    return [word for word in kept if word]


def _changed(words: list[str], error: str, target: str) -> list[str] | None:
    """Correct the cause of this error in the words. Return None if the correction is unknown."""
    changed = None
    if found := re.match(r"unknown option (\S+)(?: in (\S+))?", error):
        changed = _with_known_option(words, found[2] or found[1])
    elif error.startswith("HOST:PORT is missing"):
        changed = _with_target(words, target)
    elif found := re.match(r"HOST:PORT '(.*)': ", error):
        changed = _replaced(words, found[1], address(found[1]) or target)
    elif error.startswith("unexpected argument"):
        changed = _with_one_target(words, target)
    elif found := re.match(r"(-\S+) '(.*)': must be a positive", error):
        changed = _with_number(words, found[1], found[2])
    elif found := re.match(r"option --(\S+) takes no value", error):
        spelled = [word for word in words if re.match(r"--\w[\w-]*=(1|yes|true|on)?$", word)]
        changed = _replaced(words, spelled[0], f"--{found[1]}") if spelled else None
    return changed


def _replaced(words: Sequence[str], old: str, *new: str) -> list[str] | None:
    """Replace the last occurrence of the word `old`."""
    places = [index for index, word in enumerate(words) if word == old]
    if not places or [*new] == [old]:
        return None
    return [*words[: places[-1]], *new, *words[places[-1] + 1 :]]


def _with_known_option(words: list[str], wrong: str) -> list[str] | None:
    """Replace an unknown option with the most similar known option."""
    word = next((each for each in words if each.partition("=")[0] == wrong or each == wrong), "")
    if not word:
        return None
    given, equals, value = word.partition("=")
    letters = given.strip("-,;")
    name = nearest_option(letters)
    if name:
        return _replaced(words, word, f"--{name}{equals}{value}")
    if len(letters) == 1 and letters.lower() in _LETTERS:
        return _replaced(words, word, f"-{letters.lower()}")
    if given.startswith("--") and letters[:1] in _LETTERS and len(letters) == 1:
        return _replaced(words, word, f"-{letters}")
    return None


def nearest_option(text: str) -> str:
    """Return the name of the option that `text` probably misspells, or ""."""
    bare = text.lower().replace("_", "-")
    if len(bare) < 3:
        return ""
    close = difflib.get_close_matches(bare, _NAMES, 1, _SIMILAR)
    return close[0] if close else ""


def _with_target(words: list[str], target: str) -> list[str]:
    """Add HOST:PORT.

    If HOST:PORT is the value of -c, insert a filter before it. If it is the value of -d, remove -d.
    """
    for index in reversed(range(1, len(words))):
        option, word = words[index - 1 : index + 1]
        if _ADDRESS.fullmatch(word) and option in ("-c", "--command"):
            return [*words[:index], _FILTER, *words[index:]]
        if _ADDRESS.fullmatch(word) and option in ("-d", "--tempdir"):
            return [*words[: index - 1], *words[index:]]
    return [*words, target]


def _positions(words: Sequence[str]) -> list[int]:
    """Return the positions of the words that are neither options nor their values."""
    found: list[int] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            return [*found, *range(index + 1, len(words))]
        if word.startswith("-") and word != "-":
            index += _takes_value(word)
        else:
            found.append(index)
        index += 1
    return found


def missing_options(words: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the options in `words`, with their values, that are not in `given`."""
    known = [group[0] for group in _groups(given)]
    return [word for group in _groups(words) if group[0] not in known for word in group]


def _groups(words: Sequence[str]) -> list[list[str]]:
    """Return each option together with its value."""
    targets = {*_positions(words)}
    groups: list[list[str]] = []
    for index, word in enumerate(words):
        if index in targets:
            continue
        if groups and len(groups[-1]) == 1 and _takes_value(groups[-1][0]):
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _takes_value(word: str) -> bool:
    """Return whether the next word is the value of this option."""
    if word.startswith("--"):
        names = [name for name in _NAMES if name.startswith(word[2:])]
        return "=" not in word and any(name in _WITH_VALUE for name in names)
    return _LETTERS.get(word[-1]) in _WITH_VALUE and not _has_value(word)


def _has_value(word: str) -> bool:
    """Return whether a cluster such as `-vt60` contains the value of its last option."""
    return any(_LETTERS.get(letter) in _WITH_VALUE for letter in word[1:-1])


def _with_one_target(words: list[str], target: str) -> list[str] | None:
    """Correct arguments with more than one HOST:PORT."""
    places = _positions(words)
    for first, second in pairwise(places):
        if second == first + 1:
            for joined in _joined(words[first], words[second]):
                return [*words[:first], joined, *words[second + 1 :]]
    if kept := next(_with_one_word(words, places), None):
        return kept
    addresses = [index for index in places if _ADDRESS.fullmatch(words[index])]
    if len(addresses) == len(places):
        named = [index for index in places if words[index] == target] or places[-1:]
        unused = {*places} - {named[-1]}
        return [word for index, word in enumerate(words) if index not in unused]
    return None


def _with_one_word(words: list[str], places: Sequence[int]) -> Iterator[list[str]]:
    """Yield corrections that add dashes to an argument or remove a space or `=` before it."""
    for index in places:
        word, before = words[index], words[index - 1] if index else ""
        after_command = index > 1 and words[index - 2] in ("-c", "--command")
        if before in ("-", "--") and word in (*_NAMES, *_LETTERS):
            dashes = "--" if word in _NAMES else "-"
            yield [*words[: index - 1], f"{dashes}{word}", *words[index + 1 :]]
        if before == "=" and index > 1 and words[index - 2].startswith("-"):
            yield [*words[: index - 1], *words[index:]]
        if re.fullmatch(r"[0-9.]+", before) and word.lower().rstrip(".") in (*_SECONDS, "seconds"):
            yield [*words[: index - 1], f"{before}{word}", *words[index + 1 :]]
        if word in _NAMES and word not in _WITH_VALUE and not after_command:
            yield [*words[:index], f"--{word}", *words[index + 1 :]]


def _joined(first: str, second: str) -> Iterator[str]:
    """Yield the words with HOST:PORT joined, if it was split into two words."""
    host, port = first.rstrip(":;,"), second.lstrip(":;,")
    is_name = re.fullmatch(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", host, re.ASCII)
    if is_name and re.fullmatch("[0-9]{2,5}", port, re.ASCII) and _is_address(f"{host}:{port}"):
        yield f"{host}:{port}"


def is_host(text: str) -> bool:
    """Return whether the text can be the name or the address of a host."""
    if ":" in text:
        return bool(re.fullmatch("[0-9a-fA-F:.]+(%.+)?", text))
    if re.fullmatch("[0-9.]+", text):
        return len(text.split(".")) == 4
    return bool(re.fullmatch("[A-Za-z0-9_.-]+", text, re.ASCII))


def _is_address(text: str) -> bool:
    try:
        return bool(UpstreamAddress(text))
    except ValueError:
        return False


def address(text: str) -> str:
    """Return the HOST:PORT that was probably intended, or "" if it is unknown."""
    given = re.sub(r"^(inet|smtp|tcp|esmtp|lmtp)(://|:)", "", text.strip("\"'<>"), flags=re.I)
    given = given.rstrip("/.,;")
    v6 = re.fullmatch(r"\[?(::1|[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F]*)\]?:+([0-9]+)", given)
    if v6:
        given = f"[{v6[1]}]:{v6[2]}"
    elif found := re.fullmatch(r"(\[.+\]|[A-Za-z0-9.-]+?)[.,;:/ #]+([0-9OoIl]+)", given):
        port = found[2].translate(str.maketrans("OoIl", "0011"))
        given = f"{found[1]}:{port}"
    if re.fullmatch("[0-9.]+", given) or not _ADDRESS.fullmatch(given):
        return ""
    return given if _is_address(given) else ""


def _with_number(words: list[str], option: str, wrong: str) -> list[str] | None:
    """Correct a number, such as one with a unit (60s)."""
    is_time = option in ("-t", "--timeout")
    found = _DURATION.fullmatch(wrong)
    if _ADDRESS.fullmatch(wrong) or wrong in _spellings():
        return _inserted(words, wrong, _TIMEOUT) if is_time else None
    if is_time:
        scale = _SECONDS.get(found[2].lower(), 0.0) if found else 0.0
        number = float(found[1].replace(",", ".")) * scale if found else 0.0
        new = f"{number:g}" if 0 < number < 1e6 else _TIMEOUT
    else:
        new = re.sub(r"[^0-9]", "", wrong).lstrip("0")
    if not new:
        return None
    for word in words:
        if word != wrong and word.startswith("-") and word.endswith(wrong):
            return _replaced(words, word, word.removesuffix(wrong) + new)
    return _replaced(words, wrong, new)


def _spellings() -> list[str]:
    return [*(f"--{name}" for name in _NAMES), *(f"-{letter}" for letter in _LETTERS)]


def _inserted(words: list[str], before: str, new: str) -> list[str] | None:
    return _replaced(words, before, new, before)


def without_named_word(words: Sequence[str], error: str) -> Iterator[list[str]]:
    """Yield the arguments without the word that the error names. Its value is also omitted.

    Each result keeps the filter and `--strict`. An unknown option may have been meant to refuse
    mail. If such an option is removed and the other arguments do not include `-r`, `--strict` is
    added.
    """
    for index, word in enumerate(words):
        name = word.partition("=")[0]
        if not re.search(rf"(^|[\s']){re.escape(name)}([\s',;:]|$)", error):
            continue
        for start, end in ((index, index + 1), (index, index + 2), (index - 1, index + 1)):
            kept = [*words[: max(start, 0)], *words[end:]]
            if is_accepted(kept) and _is_complete(words, parse(kept)):
                strict = error.startswith("unknown option") and not parse(kept).reject
                yield ["--strict", *kept] if strict else kept


def _is_complete(words: Sequence[str], found: Options) -> bool:
    """Return whether the arguments keep the filter, `--strict` and `-r`."""
    has_command = any(re.match("-c|--co", word) for word in words)
    has_strict = any(re.match("--s", word) for word in words)
    has_reject = has_strict or any(re.match("-[rv]*r|--r", word) for word in words)
    return (
        (not has_command or found.command is not None)
        and (not has_strict or found.strict)
        and (not has_reject or found.reject)
    )
