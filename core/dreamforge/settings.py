"""How every process reads its settings: ``DF_*`` variables, also from ``.env``, and one line when one is wrong.

A process declares a :class:`DfSettings` subclass with a description on every field and calls :func:`load` once, at
start. Nothing else reads the environment.
"""

import re
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from dreamforge.errors import ConfigurationError

PREFIX = "DF_"

# Values under these names may hold a secret (a URL holds a password), so a message never repeats them.
_SENSITIVE = re.compile(r"secret|token|password|key|url|dsn", re.IGNORECASE)
_LONGEST_ECHO = 80


class DfSettings(BaseSettings):
    """Base of every settings group: prefix ``DF_``, ``.env`` in the working directory, empty means unset."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        case_sensitive=False,
        extra="ignore",
        hide_input_in_errors=True,
        validate_default=True,
    )


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load(settings_cls: type[SettingsT], **overrides: Any) -> SettingsT:
    """Read ``settings_cls`` from the environment; ``overrides`` are field values that win over it.

    Raises :class:`~dreamforge.errors.ConfigurationError` with one line that names each wrong variable.
    """
    try:
        return settings_cls(**overrides)
    except ValidationError as error:
        lines = [_line(settings_cls, detail) for detail in error.errors()]
        raise ConfigurationError("; ".join(lines)) from None
    except SettingsError as error:
        # Raised for lists and maps that are not JSON. Its cause holds the value, so only the field is told.
        named = re.search(r'field "([^"]+)"', str(error))
        variable = variable_of(settings_cls, named[1]) if named else PREFIX + "*"
        raise ConfigurationError(f"{variable}: must be JSON") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f".env: can't be read: {reason}") from None


def variable_of(settings_cls: type[BaseSettings], field: str) -> str:
    """The environment variable that sets ``field`` (an alias, such as ``HF_TOKEN``, stands for itself)."""
    info = settings_cls.model_fields.get(field)
    if info is None:
        return field.upper()
    alias = info.validation_alias
    if isinstance(alias, str):
        return alias.upper()
    if alias is not None:  # AliasChoices: the first is the one to tell people
        first = alias.convert_to_aliases()[0]
        return str(first[0] if isinstance(first, list) else first).upper()
    return f"{settings_cls.model_config.get('env_prefix', '')}{field}".upper()


def _line(settings_cls: type[BaseSettings], detail: ErrorDetails) -> str:
    """``DF_STORE: must be one of filesystem, s3 (got 'minio')``."""
    rule = _rule(detail)
    if not detail["loc"]:
        return rule  # a check over several fields; its own text names the variable
    variable = variable_of(settings_cls, str(detail["loc"][0]))
    return f"{variable}: {rule}{_echo(variable, detail)}"


def _rule(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return "is required and not set"
        case "literal_error" | "enum":
            choices = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
            return f"must be one of {', '.join(choices)}"
        case "string_too_short" | "too_short":
            return f"must have at least {detail['ctx']['min_length']} characters"
        case "string_too_long" | "too_long":
            return f"must have at most {detail['ctx']['max_length']} characters"
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number"
        case "float_parsing" | "float_type":
            return "must be a number"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
    message = detail["msg"].removeprefix("Value error, ")
    return " ".join(re.sub(r"^(Input|Value|String) should ", "must ", message).split())


def _echo(variable: str, detail: ErrorDetails) -> str:
    value = detail.get("input")
    if detail["type"] == "missing" or not isinstance(value, str | int | float):
        return ""
    text = repr(value)
    if _SENSITIVE.search(variable) or "@" in text or len(text) > _LONGEST_ECHO:
        return ""
    return f" (got {text})"
