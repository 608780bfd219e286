"""Secrets: typed, read from the environment or from a file, and struck out of everything that is written."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from failover.errors import Failed

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

_STRUCK = "[secret]"
_known: set[str] = set()
_guard = threading.Lock()


class InTheFile(ValueError):
    """A secret stands in a file itself; the line it stands on is not to be shown."""

    def __init__(self, said: str, value: Any) -> None:
        super().__init__(said)
        self.value = value

    def remember(self) -> None:
        """From now on `redact` strikes it out, as it does a secret that was read."""
        _remember_all(self.value)


class Secret:
    """Where a secret stands, `{env: NAME}` or `{file: PATH}`; its value is read when it is needed."""

    __slots__ = ("source",)

    def __init__(self, source: Mapping[str, str]) -> None:
        self.source = dict(source)

    def reveal(self) -> str:
        """The secret itself, for the call that needs it and for nothing else.

        Raises Failed where the variable is not set or the file cannot be read.
        """
        [(kind, name)] = self.source.items()
        if kind == "env":
            value = os.environ.get(name, "")
            if not value:
                raise Failed(f"the environment variable {name} is not set", next=f"export {name} and run it again")
        else:
            try:
                value = Path(name).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise Failed(
                    f"the secret file {name} cannot be read: {reason}", next="make it readable to this user"
                ) from None
            if not value:
                raise Failed(f"the secret file {name} is empty", next="write the secret into it")
        remember(value)
        return value

    def __repr__(self) -> str:
        [(kind, name)] = self.source.items()
        return f"Secret({kind}: {name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.source == self.source

    def __hash__(self) -> int:
        return hash(tuple(self.source.items()))

    @classmethod
    def _read(cls, value: Any) -> "Secret":
        if isinstance(value, Secret):
            return value
        if not value or (isinstance(value, dict) and set(value) <= {"env", "file"}):
            names = list(value.values()) if value else []
            if len(names) != 1 or not isinstance(names[0], str) or not names[0]:
                raise ValueError("say where the secret is: {env: NAME} or {file: PATH}, one of the two")
            return cls(value)
        said = (
            f"a secret has no key '{next(iter(value))}'"
            if isinstance(value, dict)
            else "a secret never stands in a file"
        )
        raise InTheFile(f"{said}; write {{env: NAME}} or {{file: PATH}}", value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls._read,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda secret: secret.source),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: "CoreSchema", handler: "GetJsonSchemaHandler") -> "JsonSchemaValue":
        return {
            "type": "object",
            "properties": {"env": {"type": "string"}, "file": {"type": "string"}},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
            "description": "where a secret stands: {env: NAME} or {file: PATH}",
        }


def remember(value: str) -> None:
    """From now on `redact` strikes `value` out, and each longer line of it, since output comes line by line.

    Values under four characters, and lines under eight, would strike out ordinary words.
    """
    with _guard:
        if len(value) >= 4:
            _known.add(value)
        _known.update(line for line in value.splitlines() if len(line) >= 8)


def _remember_all(value: Any) -> None:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _remember_all(item)
    elif not isinstance(value, bool) and value is not None:
        remember(str(value))


def redact_all(value: Any) -> Any:
    """Plain data without secrets, text by text: inside JSON, a secret with a quote would not look like itself."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(item) for item in value]
    return value


def redact(text: str) -> str:
    """`text` without any secret that this process has read."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, _STRUCK)
    return text
