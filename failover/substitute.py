"""`${name}` in files: a name is replaced by its value, and that is all there is to it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from failover.errors import did_you_mean

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]{0,200})\}|\$\{")
_MOST_COMPLAINTS = 10
Complain = Callable[[tuple[str | int, ...], str], None]


def substitute(
    value: Any,
    names: Mapping[str, Any],
    complain: Complain,
    loc: tuple[str | int, ...] = (),
    *,
    place: str = "here",
) -> Any:
    """`value` with every `${name}` in its texts and keys replaced. One that stands alone keeps its value's type.

    `$${` stands for a plain `${`. Unknown names go to `complain` with the path at which they stand; `place` says
    where they are not known.
    """
    if isinstance(value, str):
        return _text(value, names, complain, loc, place) if "${" in value else value
    if isinstance(value, Mapping):
        filled: dict[str, Any] = {}
        for key, item in value.items():
            name = str(_text(key, names, complain, (*loc, key), place)) if "${" in key else key
            if name in filled:
                complain((*loc, key), f"'{name}' stands here twice, once by way of '${{…}}'")
            filled[name] = substitute(item, names, complain, (*loc, key), place=place)
        return filled
    if isinstance(value, list):
        return [substitute(item, names, complain, (*loc, index), place=place) for index, item in enumerate(value)]
    return value


def references(text: str) -> set[str]:
    """The names that `text` has between `${` and `}`."""
    return {match[1] for match in _REFERENCE.finditer(text) if match[1] is not None}


def _text(
    text: str,
    names: Mapping[str, Any],
    complain: Complain,
    loc: tuple[str | int, ...],
    place: str,
) -> Any:
    whole = _REFERENCE.fullmatch(text)
    if whole and whole.group(1) in names:
        return names[whole.group(1)]

    said: set[str] = set()

    def say(message: str) -> None:
        if message not in said and len(said) < _MOST_COMPLAINTS:
            said.add(message)
            complain(loc, message)

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if match[0] == "$${":
            return "${"
        if name is None:
            say("this '${' is never closed; add the '}', or write '$${' for a plain '${'")
            return match[0]
        if name not in names:
            near = did_you_mean(name, names) or "; nothing is declared that could be filled in"
            say(f"'${{{name}}}' is not known {place}{near}")
            return match[0]
        value = names[name]
        if isinstance(value, list | Mapping):
            kind = "list" if isinstance(value, list) else "mapping"
            say(f"'${{{name}}}' is a {kind} and cannot stand inside a text; write it alone")
            return match[0]
        return str(value).lower() if isinstance(value, bool) else str(value)

    return _REFERENCE.sub(one, text)
