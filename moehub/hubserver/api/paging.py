"""Lists in pieces: the address of the next piece stands in the `Link` header."""

from typing import Any
from urllib.parse import urlencode

from starlette.responses import JSONResponse

from moehub.hubserver.api.call import Call
from moehub.hubserver.refusals import RefusedError

_CURSOR = "cursor"


def limit(call: Call, most: int) -> int:
    """Return how many items the visitor wants at once: at most `most`.

    Raises:
        RefusedError: `limit` is no number.
    """
    asked = call.first("limit", str(most))
    if not asked.isascii() or not asked.isdigit() or len(asked) > 9:
        raise RefusedError(400, f"limit is {asked!r:.60}, expected a number")
    return max(1, min(int(asked), most))


def cursor(call: Call) -> str | None:
    """Return where the piece begins: what `page` was told; None at the beginning."""
    return call.first(_CURSOR) or None


def page(call: Call, items: list[Any], after: str | None) -> JSONResponse:
    """Return one piece; `after` says where the next one begins, None if there is none."""
    if after is None:
        return JSONResponse(items)
    path = call.request.scope["raw_path"].decode("ascii")
    query = urlencode({**call.query, _CURSOR: [after]}, doseq=True)
    return JSONResponse(items, headers={"Link": f'<{call.address}{path}?{query}>; rel="next"'})
