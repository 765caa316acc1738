"""Making an invitation from a server's folder."""

import tomllib
from pathlib import Path

from moehub import base as bases
from moehub.card import BasePin
from moehub.errors import ConfigError, FederationError
from moehub.federation.deploy.guard import PYPROJECT
from moehub.federation.deploy.invitation import Invitation
from moehub.federation.deploy.server_folder import ServerFolder
from moehub.federation.form import Form
from moehub.federation.settings import read_federation, unflatten


def invite(path: Path, file: Path | None = None) -> Invitation:
    """Return an invitation to the server in a folder, for the federation in `file`, or for the run in progress.

    Raises:
        ConfigError: the settings in the file contradict themselves.
        BaseModelError: there is no such base.
        FederationError: there is no server, or its certificate cannot be read.
    """
    folder = ServerFolder(path)
    serving = folder.serving()
    base, aggregation = _settled(folder) if file is None else _of(file)
    try:
        certificate = Path(serving.authority).read_text(encoding="ascii") if serving.authority else ""
    except (OSError, ValueError) as error:
        raise FederationError(
            f"the certificate of the authority {serving.authority} cannot be read ({error}): start the server again"
        ) from error
    return Invitation(serving.address, certificate, base, aggregation, serving.insecure)


def _of(file: Path) -> tuple[BasePin, str]:
    settings = read_federation(file)
    return bases.find(settings.base).pin(), settings.aggregation


def _settled(folder: ServerFolder) -> tuple[BasePin | None, str]:
    """Return the base and the aggregation of the run that was handed over last."""
    if folder.job() is None:
        return None, ""
    try:
        with (folder.bundle / PYPROJECT).open("rb") as written:
            settings = tomllib.load(written)["tool"]["flwr"]["app"]["config"]
        return Form.from_json(settings["form"]).base, unflatten(settings).aggregation
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise FederationError(
            f"{folder.bundle} cannot be read ({error}): name the settings, as in `moehub federate invite FILE`"
        ) from error
