"""Refusals and errors as the client understands them."""

from starlette.responses import JSONResponse

from moehub.hubserver.refusals import RefusedError

_LONGEST_HEADER = 500
_NO_CREDENTIALS = "Invalid credentials in Authorization header"
"""By this sentence the client knows that a 401 over TLS is about the token, and not about a repo that is not there."""


def refusal(error: RefusedError) -> JSONResponse:
    """Return the answer that tells the client why; what it raises shows the whole sentence."""
    headers = {"Cache-Control": "no-store"}
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    if error.commit is not None:
        headers["X-Repo-Commit"] = error.commit
    if error.status == 503:
        headers["Retry-After"] = "5"
    sentence = str(error)
    header = _NO_CREDENTIALS if error.status == 401 else sentence
    # The client shows this header above the body, unless they are equal: what has many lines stands in the body alone.
    if "\n" not in header:
        headers["X-Error-Message"] = header[:_LONGEST_HEADER].encode("ascii", "replace").decode()
    return JSONResponse({"error": sentence}, error.status, headers)
