"""Whether the beginning of a model card can be read."""

import yaml
from starlette.responses import JSONResponse

from moehub.config import YAML_FAULTS
from moehub.hub.model_card import FRONT_MATTER
from moehub.hubserver.api.call import Call
from moehub.hubserver.store.heads import MOST_FRONT

_NONE = "the model card begins with no YAML between two lines of ---: nobody will find the repo by its base or licence"


def validate(call: Call) -> JSONResponse:
    """Answer what is wrong with a model card, before the client uploads it.

    Raises:
        RefusedError: the body is no text.
    """
    found = FRONT_MATTER.match(call.values().text("content"))
    if found is None:
        return JSONResponse({"errors": [], "warnings": [{"message": _NONE}]})
    if len(found[1]) > MOST_FRONT:
        return _faulty(f"the YAML at the beginning of the model card has over {MOST_FRONT} characters: shorten it")
    try:
        values = yaml.safe_load(found[1])
    except YAML_FAULTS as error:
        return _faulty(f"the YAML at the beginning of the model card cannot be read ({error})")
    if values is not None and not isinstance(values, dict):
        return _faulty("the YAML at the beginning of the model card is no mapping, expected lines of `key: value`")
    return JSONResponse({"errors": [], "warnings": []})


def _faulty(sentence: str) -> JSONResponse:
    return JSONResponse({"errors": [{"message": sentence}], "warnings": []}, 400)
