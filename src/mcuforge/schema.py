"""Checks configuration, registries and records against the workflow's JSON schemas."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from mcuforge.errors import ConfigError

SCHEMAS = Path(__file__).parent / "schemas"


def _pattern(
    validator: jsonschema.Draft202012Validator, pattern: str, instance: Any, schema: Any
) -> Iterator[jsonschema.ValidationError]:
    """JSON schema's ``pattern``: Python's $ would also match before a newline at the end."""
    if isinstance(instance, str) and instance.endswith("\n"):
        pattern = re.sub(r"\$$", r"\\Z", pattern)
    yield from jsonschema.Draft202012Validator.VALIDATORS["pattern"](
        validator, pattern, instance, schema
    )


_Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"pattern": _pattern}
)


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())
    return _Validator(schema)


def check(document: Any, name: str, source: str) -> None:
    """Raise ConfigError unless `document` fits the schema ``schemas/{name}.schema.yaml``."""
    fit(document, _validator(name), source)


def fit(document: Any, validator: jsonschema.Draft202012Validator, source: str) -> None:
    """Raise ConfigError unless `document` fits a schema.

    Args:
        document: what was read from YAML or JSON.
        validator: of the schema.
        source: where the document came from, named in the message.

    The message names the place inside the document; the hint is the schema's own description
    of what belongs there.
    """
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if error is None:
        return
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path
    ).lstrip(".")
    message = error.message if len(error.message) < 200 else error.message[:200] + "..."
    hint = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    raise ConfigError(f"{source}: {place + ': ' if place else ''}{message}", " ".join(hint.split()))


def read_yaml(path: Path, name: str) -> Any:
    """The content of a YAML file that fits the schema `name`; ConfigError if it cannot be read."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    check(document, name, str(path))
    return document
