"""A server on this machine's loopback that speaks OpenAI's API, as well or as badly as a test wants."""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Asked = Mapping[str, Any]
"""The body of a request."""


def question_of(asked: Asked) -> str:
    """Return the last thing that was said in a request."""
    return str(asked["prompt"] if "prompt" in asked else asked["messages"][-1]["content"])


@dataclass
class Speaker:
    """What the server says; every knob may be turned while it runs."""

    says: Callable[[Asked], str] = question_of
    """Text of an answer; the question itself unless a test says otherwise."""
    believes: Callable[[Asked], Mapping[str, float]] | None = None
    """Probabilities of first tokens; None: the server shows none."""
    refusals: list[int] = field(default_factory=list)
    """Statuses of the next answers, which are refused."""
    fails_after: int | None = None
    """How many requests are answered before all are refused as wrong."""
    renamed: bool = False
    """Whether `max_tokens` is refused, as newer models of OpenAI do."""
    counts: bool = True
    """Whether tokens are counted."""
    seconds: float = 0.0
    """What an answer takes."""
    asked: list[Asked] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    url: str = ""

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        asked = await request.json()
        self.asked.append(asked)
        self.headers.append(dict(request.headers))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(self.seconds)
        self.open -= 1
        if self.fails_after is not None and len(self.asked) > self.fails_after:
            return _refusal(400, "broken")
        if self.refusals:
            return _refusal(self.refusals.pop(0), "not now")
        if self.renamed and "max_tokens" in asked:
            return _refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return JSONResponse(self._reply(asked))

    def _reply(self, asked: Asked) -> dict[str, Any]:
        text = self.says(asked)
        shown = None if self.believes is None or not asked.get("logprobs") else self.believes(asked)
        listed = {token: math.log(one) for token, one in (shown or {}).items()}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
        if "prompt" in asked:
            choice |= {"text": text, "logprobs": {"top_logprobs": [listed]} if shown else None}
        else:
            top = [{"token": token, "logprob": value} for token, value in listed.items()]
            choice |= {"message": {"role": "assistant", "content": text}}
            choice |= {"logprobs": {"content": [{**top[0], "top_logprobs": top}]} if shown else None}
        reply = {"id": "1", "object": "it", "created": 0, "model": asked["model"], "choices": [choice]}
        read, written = len(question_of(asked).split()), len(text.split())
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return reply | ({"usage": usage} if self.counts else {})


def _refusal(status: int, message: str) -> Response:
    # The client waits as long as it is told to.
    return JSONResponse({"error": {"message": message}}, status, {"retry-after-ms": "1"})


@contextlib.contextmanager
def speaking(**knobs: Any) -> Iterator[Speaker]:
    """Run a server on a free port until the block ends."""
    speaker = Speaker(**knobs)
    routes = [Route(f"/v1/{path}", speaker.answer, methods=["POST"]) for path in ("chat/completions", "completions")]
    config = uvicorn.Config(
        Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical", ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        speaker.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
        yield speaker
    finally:
        server.should_exit = True
        thread.join()
