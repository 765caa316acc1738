"""Open a model that answers or judges: a base, an expert or a MoE here, or one behind an endpoint."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from moehub.answering.answerer import Answerer
from moehub.answering.endpoint import Endpoint, Manners
from moehub.answering.local import Local
from moehub.answering.meter import Meter, Price
from moehub.errors import ConfigError
from moehub.models import open_model

KEYS_VARIABLE = "MOEHUB_API_KEYS"
"""The environment variable that names the keys of hosts for a whole shell."""
_SCHEMES = ("http://", "https://")


class Metered(Answerer, Protocol):
    """A model that answers, and whose cost is counted."""

    @property
    def meter(self) -> Meter:
        """Return what was counted so far."""
        ...


def named_keys() -> dict[str, str]:
    """Return host → the environment variable that holds its key, as `MOEHUB_API_KEYS` has them.

    Raises:
        ConfigError: it holds something else than HOST=VARIABLE, with blanks between them.
    """
    return dict(key(one) for one in os.environ.get(KEYS_VARIABLE, "").split())


def key(given: str) -> tuple[str, str]:
    """Return host and variable of HOST=VARIABLE.

    Raises:
        ConfigError: it is none.
    """
    host, equals, variable = given.partition("=")
    if not equals or not host or not variable.isidentifier():
        # What stands there may be the key itself: it is not repeated.
        raise ConfigError(
            f"--api-key or {KEYS_VARIABLE} is no HOST=VARIABLE, as api.example.org=MY_KEY: name the environment "
            "variable that holds the key, and never the key itself"
        )
    return host, variable


@dataclass(frozen=True)
class Access:
    """How models are opened that a person names."""

    base: str | None = None
    """Where the base of an expert or a MoE is, if not where it says."""
    backend: str = "auto"
    """How a MoE's sparse layers are computed."""
    keys: Mapping[str, str] = field(default_factory=named_keys)
    """Host, as `api.example.org` or `127.0.0.1:8000` → the environment variable that holds its key."""
    manners: Manners = field(default_factory=Manners)
    """How servers are asked."""
    price: Price | None = None
    """What the tokens of all of these models cost."""


def is_endpoint(reference: str) -> bool:
    """Return whether a reference names a model behind a server."""
    return reference.startswith(_SCHEMES)


def open_answerer(reference: str, access: Access | None = None) -> Metered:
    """Return the model that a reference names, ready to answer.

    Args:
        reference: a folder or a hub's `org/name[@revision]` of a base, an expert or a MoE; or `http://host/v1#model`,
            the address of an API like OpenAI's and what it calls the model.
        access: how it is opened; where none is given, with the keys that `MOEHUB_API_KEYS` names.

    Raises:
        ConfigError: the address names no model, or a variable that is to hold a key is not set.
        MoehubError: there is nothing of that name, or it is damaged.
    """
    access = access or Access()
    meter = Meter(access.price)
    if is_endpoint(reference):
        url, _, model = reference.partition("#")
        if not model:
            raise ConfigError(f"{reference} names a server and no model, expected one like http://host/v1#model")
        variable = access.keys.get(urlsplit(url).netloc)
        return Endpoint(url, model, key_variable=variable, manners=access.manners, meter=meter)
    opened = open_model(reference, base=access.base, backend=access.backend)
    return Local(opened.model, opened.tokenizer, opened.name, meter=meter)
