"""Records and tables whose columns are declared once, each on one line of a dataclass.

A field says what type a column has, where its value comes from and what it means. The JSON schema
of a record, the types of a table read from CSV, and the tables in the documentation follow. As in::

    @dataclass(frozen=True, kw_only=True)
    class Measurement(Record):
        ram_bytes: Annotated[Count, Column("firmware", "RAM of the whole firmware")]
"""

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import jsonschema

from mcuforge import files, schema
from mcuforge.errors import ConfigError

SCHEMA_VERSION = 2
# Types of values, each with pairs of a keyword of JSON Schema and its value.
Text = Annotated[str, ("minLength", 1)]
Count = Annotated[int, ("minimum", 0)]
Positive = Annotated[int, ("minimum", 1)]
Amount = Annotated[float, ("minimum", 0)]
Fraction = Annotated[float, ("minimum", 0), ("maximum", 1)]
Hex = Annotated[str, ("pattern", "^([0-9a-f]{2})*$")]
BuildId = Annotated[str, ("pattern", "^[0-9a-f]{16}$")]
Sha256 = Annotated[str, ("pattern", "^[0-9a-f]{64}$")]
_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
# Columns of these JSON types; pandas finds the type of the others by itself.
_PANDAS_TYPES = {
    "integer": "int64",
    "['integer', 'null']": "Int64",
    "['boolean', 'null']": "boolean",
}


@dataclass(frozen=True)
class Column:
    """What a column is, beside its name and type.

    Attributes:
        source: what knows the value, see `gather`.
        meaning: for people, without a full stop.
        name: what the source calls it, if it has another name there.
    """

    source: str
    meaning: str
    name: str = ""


def columns(table: type) -> dict[str, Column]:
    """The columns of a dataclass by name, in order."""
    hints = get_type_hints(table, include_extras=True)
    return {field.name: hints[field.name].__metadata__[-1] for field in dataclasses.fields(table)}


def gather(table: type, **sources: object) -> dict[str, Any]:
    """The values of all columns that come from one of `sources`, by the column's name."""
    return {
        name: getattr(sources[column.source], column.name or name)
        for name, column in columns(table).items()
        if column.source in sources
    }


def pandas_types(table: type) -> dict[str, str]:
    """What ``DataFrame.astype`` is told, so that missing integers and flags stay what they are."""
    kinds = {name: str(kind.get("type")) for name, kind in _properties(table).items()}
    return {name: _PANDAS_TYPES[kind] for name, kind in kinds.items() if kind in _PANDAS_TYPES}


def markdown(table: type) -> str:
    """The columns and their meanings as a table for the documentation."""
    rows = [f"| `{name}` | {column.meaning} |" for name, column in columns(table).items()]
    return "\n".join(["| column | meaning |", "|---|---|", *rows])


def _properties(table: type) -> dict[str, dict[str, Any]]:
    """The JSON schemas of the values of a dataclass or typed dictionary, by name."""
    return {
        name: _schema(kind) for name, kind in get_type_hints(table, include_extras=True).items()
    }


def _schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type annotation."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _JSON_TYPES:
        return {"type": _JSON_TYPES[kind]}
    if origin is Annotated:
        facts = [("description", f.meaning) if isinstance(f, Column) else f for f in arguments[1:]]
        return _schema(arguments[0]) | dict(facts)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType) and arguments[1:] == (NoneType,):
        some = _schema(arguments[0])
        return some | {"type": [some["type"], "null"]}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    if is_typeddict(kind):
        return _object(_properties(kind))
    raise TypeError(f"no JSON schema for {kind}")


def _object(properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@dataclass(frozen=True)
class Record:
    """A row as a JSON file that fits its columns' schema; written completely or not at all."""

    def to_json(self) -> str:
        """The record as JSON text; ConfigError if it does not fit its schema."""
        document = {"schema": SCHEMA_VERSION, **dataclasses.asdict(self)}
        document = json.loads(json.dumps(document, allow_nan=False))
        self._fit(document, f"{type(self).__name__} record")
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "record") -> Self:
        """Read what ``to_json`` wrote; ConfigError naming `source` if it is anything else."""
        try:
            document: Any = json.loads(text)
        except ValueError as error:
            raise ConfigError(
                f"{source} is not JSON: {error}", "delete it and run again"
            ) from error
        cls._fit(document, source)
        del document["schema"]
        return cls(**document)

    @classmethod
    def _fit(cls, document: Any, source: str) -> None:
        # mypy takes the hash of a record for that of its class.
        schema.fit(document, _validator(cls), source)  # type: ignore[arg-type]

    def write(self, path: Path) -> None:
        """Write the record to `path` atomically."""
        files.write(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record file; ConfigError if it is missing or does not fit its schema."""
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {error}") from error
        return cls.from_json(text, str(path))


@functools.cache
def _validator(record: type[Record]) -> jsonschema.Draft202012Validator:
    properties = {"schema": {"const": SCHEMA_VERSION}, **_properties(record)}
    return jsonschema.Draft202012Validator(_object(properties))
