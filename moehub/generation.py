"""Write text with a model, piece by piece, and say which expert each token went to."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from moehub import chat
from moehub.answering.answerer import Sampling
from moehub.chat import Message
from moehub.errors import DataError
from moehub.evaluation import UNFINISHED, TracedToken, pieces, traced
from moehub.models import Opened


def encode_prompt(opened: Opened, prompt: str, *, as_chat: bool = False) -> Tensor:
    """Return the prompt's token ids, int64 [1, T]; with `as_chat` it is the first turn of a conversation.

    Raises:
        DataError: the prompt is empty.
    """
    if as_chat:
        prompt = chat.render(opened.tokenizer, [Message("user", prompt)], answer=True)
    ids = opened.tokenizer(prompt, return_tensors="pt", add_special_tokens=not as_chat)["input_ids"]
    if not ids.numel():
        raise DataError("the prompt is empty: expected some text to go on from, as an argument or on standard input")
    return ids.long()


def generate(
    opened: Opened, prompt: Tensor, sampling: Sampling, *, on_token: Callable[[TracedToken], None], trace: bool
) -> list[int]:
    """Return the ids written after `prompt` [1, T]; each is shown to `on_token` as soon as it is there.

    With `trace` the prompt's own tokens are shown too, and every token names its expert.
    """
    if sampling.seed is not None:
        torch.manual_seed(sampling.seed)
    streamer = _Streamer(opened, on_token, trace=trace)
    device = opened.model.get_input_embeddings().weight.device
    prompt = prompt.to(device)
    with torch.inference_mode():
        output = opened.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            streamer=streamer,
            pad_token_id=opened.tokenizer.pad_token_id or opened.tokenizer.eos_token_id,
            **sampling.options(),
        )
    return output[0, prompt.shape[1] :].tolist()


class _Streamer(BaseStreamer):
    """Turns ids into text as they come; a token that ends inside a character waits for the rest of it."""

    def __init__(self, opened: Opened, on_token: Callable[[TracedToken], None], *, trace: bool) -> None:
        self.opened, self.on_token, self.trace = opened, on_token, trace
        self.ids: list[int] = []
        self.shown = 0

    def put(self, value: Tensor) -> None:
        """Show the tokens that `value` completes; the first call brings the prompt."""
        is_prompt = not self.ids
        self.ids += value.flatten().tolist()
        if is_prompt and not self.trace:
            self.shown = len(self.ids)
            return
        self._show()

    def end(self) -> None:
        """Show what still waited."""
        self._show(everything=True)

    def _show(self, *, everything: bool = False) -> None:
        tokens = traced(self.opened, torch.tensor(self.ids)) if self.trace else self._plain()
        ready = len(tokens)
        while not everything and ready > self.shown and tokens[ready - 1].text.endswith(UNFINISHED):
            ready -= 1
        for token in tokens[self.shown : ready]:
            self.on_token(token)
        self.shown = max(self.shown, ready)

    def _plain(self) -> list[TracedToken]:
        return [TracedToken(text, "", 0.0) for text in pieces(self.opened.tokenizer, self.ids)]
