"""How the client should send each file: in the commit itself, or beforehand as a large one."""

import base64
import binascii
from typing import Any

from starlette.responses import JSONResponse

from moehub.hubserver.api.call import Call
from moehub.hubserver.api.details import commit_named
from moehub.hubserver.api.values import Values
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import trees
from moehub.hubserver.store.trees import Tree

LARGEST_REGULAR = 1 << 20
"""Bytes of the largest file that a commit may hold itself."""
_TENSORS = (".safetensors", ".gguf")
_MOST_FILES = 1000


def preupload(call: Call) -> JSONResponse:
    """Answer how each file should be sent, and what stands at its path already.

    Raises:
        RefusedError: there is no such repo or revision, or no file here may have such a path or size.
    """
    repo = call.repo(write=True)
    oid = commit_named(call, repo, call.parts["revision"].removeprefix("refs/heads/"))
    tree = call.store.history.tree(repo, oid) if oid else {}
    return JSONResponse({"files": [_file(call, tree, file) for file in call.values().objects("files", _MOST_FILES)]})


def check_size(call: Call, path: str, size: int) -> None:
    """Refuse a file that is larger than any that the hub takes.

    Raises:
        RefusedError: it is.
    """
    if size > call.settings.largest_file:
        raise RefusedError(
            413, f"{path} has {size} bytes, and this hub takes {call.settings.largest_file}: split it into several"
        )


def _file(call: Call, tree: Tree, file: Values) -> dict[str, Any]:
    path = trees.check_path(file.text("path"), pickles=call.settings.pickles)
    size = file.size("size")
    check_size(call, path, size)
    there = tree.get(path)
    return {
        "path": path,
        "uploadMode": "lfs" if _is_large(path, size, file.text("sample", "")) else "regular",
        "shouldIgnore": False,
        "oid": there.etag if there else None,
    }


def _is_large(path: str, size: int, sample: str) -> bool:
    return path.endswith(_TENSORS) or size > LARGEST_REGULAR or _is_binary(sample)


def _is_binary(sample: str) -> bool:
    try:
        return b"\0" in base64.b64decode(sample, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(400, f"sample is {sample!r:.60}, expected the file's first bytes in base64") from error
