"""`${name}` in files: a name is replaced by its value, and that is all there is to it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from failover.errors import did_you_mean

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}")


def substitute(
    value: Any,
    names: Mapping[str, Any],
    complain: Callable[[tuple[str | int, ...], str], None],
    loc: tuple[str | int, ...] = (),
) -> Any:
    """`value` with every `${name}` in its texts replaced. A text that is one reference takes the value's own type.

    `$${` stands for a plain `${`. Unknown names go to `complain` with the path at which they stand.
    """
    if isinstance(value, str):
        return _text(value, names, complain, loc) if "${" in value else value
    if isinstance(value, Mapping):
        return {key: substitute(item, names, complain, (*loc, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, names, complain, (*loc, index)) for index, item in enumerate(value)]
    return value


def _text(
    text: str,
    names: Mapping[str, Any],
    complain: Callable[[tuple[str | int, ...], str], None],
    loc: tuple[str | int, ...],
) -> Any:
    whole = _REFERENCE.fullmatch(text)
    if whole and whole.group(1) in names:
        return names[whole.group(1)]

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "${"
        if name not in names:
            complain(loc, f"'${{{name}}}' is not known here{did_you_mean(name, names)}")
            return ""
        value = names[name]
        if isinstance(value, list | Mapping):
            complain(loc, f"'${{{name}}}' is a list and cannot stand inside a text; write it alone")
            return ""
        return str(value)

    return _REFERENCE.sub(one, text)
