"""The settings of a service: environment variables, each of which the service must know.

Owns the reading of a configuration class, and the texts that name the variables. The classes own names and rules.
"""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from os import environ
from typing import Final, Self, TypeVar

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

CLIENT_VARIABLES: Final = frozenset(
    {
        "MARKET_INFERENCE_API_KEY",
        "MARKET_INFERENCE_STATE_DIR",
        "MARKET_INFERENCE_TARGET",
        "MARKET_TRAINING_URL",
    }
)
"""Variables of the client and the command line that begin as a service's settings do."""
# Kubernetes sets NAME_SERVICE_HOST, NAME_PORT=tcp://..., NAME_PORT_8470_TCP_ADDR and more for every Service NAME.
_SERVICE_LINK: Final = re.compile(r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_SERVICE_PORT: Final = re.compile(r"(\w+_)?PORT=(tcp|udp|sctp)://.*")
_LIST: Final = "docs/operations.md lists the settings"
T = TypeVar("T", bound="Settings")


class SettingsError(Exception):
    """Settings that the service does not know, or whose values it refuses. `problems`: one text each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))

    def of(self, service: str) -> str:
        """The problems as lines that begin with the name of the service."""
        return "\n".join(f"{service}: {problem}" for problem in self.problems)


class Settings(BaseSettings):
    """A frozen configuration: every field is the environment variable of the prefix and the field's name.

    An empty variable is unset: templates of Helm and Compose write a variable without a value so.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field."""
        return f"{cls.model_config['env_prefix']}{field.upper()}"

    @model_validator(mode="after")
    def _refuse_half_a_certificate(self) -> Self:
        """A certificate, its key and, for a server, the authority of the clients' certificates belong together."""
        for field in type(self).model_fields:
            if field.endswith("tls_certificate"):
                start = field.removesuffix("certificate")
                needs = {"key": "certificate", "certificate": "key", "client_ca": "certificate"}
                for given, needed in needs.items():
                    if getattr(self, start + given, None) is not None and getattr(self, start + needed) is None:
                        one, other = self.variable(start + given), self.variable(start + needed)
                        raise ValueError(f"{one}={getattr(self, start + given)} needs {other}")
        return self


def read(kind: type[T]) -> T:
    """The configuration from the environment. Raises SettingsError."""
    unknown = list(_unknown(kind))
    try:
        config = kind()
    except ValidationError as error:
        raise SettingsError([*unknown, *(_problem(kind, one) for one in error.errors(include_url=False))]) from error
    if unknown:
        raise SettingsError(unknown)
    return config


def _unknown(kind: type[Settings]) -> Iterator[str]:
    """The variables with the prefix of the service that are no settings; an empty one is unset."""
    prefix = kind.model_config["env_prefix"]
    known = {field.upper() for field in kind.model_fields}
    known |= {name.removeprefix(prefix) for name in CLIENT_VARIABLES if name.startswith(prefix)}
    for name, value in sorted(environ.items()):
        upper = name.upper()
        rest = upper.removeprefix(prefix)
        if rest == upper or rest in known or not value or _is_service_link(rest, value):
            continue
        nearest = get_close_matches(rest, sorted(known), 1)
        yield f"{name} is no setting: " + (f"{prefix}{nearest[0]} is the nearest one" if nearest else _LIST)


def _is_service_link(rest: str, value: str) -> bool:
    return (_SERVICE_LINK.fullmatch(rest) or _SERVICE_PORT.fullmatch(f"{rest}={value}")) is not None


def _problem(kind: type[Settings], error: ErrorDetails) -> str:
    """The text of one refused value. A rule over several settings names the variables in its own text."""
    said = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return said
    field = str(error["loc"][0])
    secret = kind.model_fields[field].annotation in (SecretStr, SecretStr | None)
    value = str(error["input"])
    # An address may hold a password. A line end, as in a file of variables from Windows, must be seen.
    shown = "" if secret or "@" in value else f"={value if value.isprintable() else repr(value)}"
    return f"{kind.variable(field)}{shown}: {said[:1].lower()}{said[1:]}"
