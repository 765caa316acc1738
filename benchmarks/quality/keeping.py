"""The bench's texts in one file: what is installed later must not move a document from one split to another."""

import json
from pathlib import Path
from typing import Any

from benchmarks.quality.texts import Domain, Texts
from moehub import files
from moehub.chat import Message
from moehub.experts.examples import Completion, Conversation, Example, Text


def save(texts: Texts, file: Path) -> None:
    """Write the texts to a file."""
    values = {
        "domains": [_domain(one) for one in texts.domains],
        "unseen": [_domain(one) for one in texts.unseen],
        "generic": _domain(texts.generic),
        "base": list(texts.base),
    }
    files.write_text(file, json.dumps(values))


def load(file: Path) -> Texts:
    """Return the texts that `save` wrote."""
    values = json.loads(file.read_text(encoding="utf-8"))
    return Texts(
        tuple(map(_to_domain, values["domains"])),
        tuple(map(_to_domain, values["unseen"])),
        _to_domain(values["generic"]),
        tuple(values["base"]),
    )


def _domain(domain: Domain) -> dict[str, Any]:
    splits = {name: [_example(one) for one in getattr(domain, name)] for name in ("train", "tune", "test")}
    return {"name": domain.name, "twin": domain.twin, **splits}


def _to_domain(values: dict[str, Any]) -> Domain:
    train, tune, test = (tuple(map(_to_example, values[name])) for name in ("train", "tune", "test"))
    return Domain(values["name"], train, tune, test, values["twin"])


def _example(example: Example) -> list[Any]:
    match example:
        case Text():
            return [example.text, example.ends]
        case Completion():
            return [[example.prompt, example.completion]]
        case Conversation():
            return [[[message.role, message.content] for message in example.messages], "messages"]


def _to_example(values: list[Any]) -> Example:
    match values:
        case [[str(prompt), str(completion)]]:
            return Completion(prompt, completion)
        case [list(messages), "messages"]:
            return Conversation(tuple(Message(role, content) for role, content in messages))
        case [str(text), bool(ends)]:
            return Text(text, ends=ends)
    raise ValueError(f"{values!r:.80} is no example")
