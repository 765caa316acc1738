"""Open a model that answers or judges: a base, an expert or a MoE here, or one behind an endpoint."""

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

_SCHEMES = ("http://", "https://")


class Metered(Answerer, Protocol):
    """A model that answers, and whose cost is counted."""

    @property
    def meter(self) -> Meter:
        """Return what was counted so far."""
        ...


@dataclass(frozen=True)
class Access:
    """How models are opened that a person names."""

    base: str | None = None
    """Where the base of an expert or a MoE is, if not where it says."""
    backend: str = "auto"
    """How a MoE's sparse layers are computed."""
    keys: Mapping[str, str] = field(default_factory=dict)
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
        access: how it is opened.

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
        key = access.keys.get(urlsplit(url).netloc)
        return Endpoint(url, model, key_variable=key, manners=access.manners, meter=meter)
    opened = open_model(reference, base=access.base, backend=access.backend)
    return Local(opened.model, opened.tokenizer, opened.name, meter=meter)
