"""Who a token belongs to."""

from starlette.responses import JSONResponse

from moehub.hubserver.api.call import Call
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.visitor import EVERY_NAMESPACE


def whoami(call: Call) -> JSONResponse:
    """Answer who asks, and which namespaces are theirs.

    Raises:
        RefusedError: nobody in particular.
    """
    visitor = call.visitor
    if not visitor.known and not call.settings.open:
        raise RefusedError(401, "this takes a token: have one made with `moehub hub token create`")
    role = "write" if visitor.writes else "read"
    theirs = sorted(visitor.namespaces - {EVERY_NAMESPACE, visitor.name.lower()})
    return JSONResponse(
        {
            "type": "user",
            "id": visitor.name,
            "name": visitor.name,
            "fullname": visitor.name,
            "email": None,
            "emailVerified": False,
            "isPro": False,
            "orgs": [{"type": "org", "name": each, "fullname": each, "roleInOrg": role} for each in theirs],
            "auth": {"type": "access_token", "accessToken": {"displayName": visitor.name, "role": role}},
        },
        headers={"Cache-Control": "no-store"},
    )
