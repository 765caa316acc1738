import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from moehub import __version__
from moehub import base as bases
from moehub.experts.statistics import Statistics
from moehub.federation import client_app, messages, weights
from moehub.federation.messages import Counted, DescribeTask, Description, Evaluated, Trained
from moehub.federation.node import service, work
from moehub.federation.node.contributor import to_flower
from moehub.federation.node.desk import Desk
from tests.federation.tasks import contributor, counting, evaluation, ignore_peft, small, start, training

pytestmark = ignore_peft


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand where Flower's process for a message stands."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def node(tmp_path: Path, base_folder: Path) -> dict[str, Any]:
    """Return the node's configuration as Flower carries it."""
    return dict(to_flower(contributor(tmp_path, base_folder, name="Smith & Sons"), tmp_path / "desk"))


def _send(kind: str, task: Any, node: dict[str, Any], arrays: Any = None) -> Message:
    message = Message(messages.content(task, arrays), dst_node_id=7, message_type=kind)
    message.metadata.__dict__["_message_id"] = "message"
    context = Context(run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config={})
    return client_app.app(message, context)


def _describe(base: Path) -> DescribeTask:
    pin = bases.find(str(base)).pin()
    return DescribeTask("tiny-llama", "", pin.digest, pin.tokenizer)


def test_node_describes_itself(base_folder: Path, node: dict[str, Any]) -> None:
    """Its name only where its owner agreed; the base that it has."""
    reply = _send(messages.DESCRIBE, _describe(base_folder), {**node, "rank": 4})
    said = messages.facts(Description, reply.content)
    digest = bases.weights_digest(base_folder)
    assert said == Description("law", "", digest, 4, said.device, __version__)
    assert said.device
    credited = _send(messages.DESCRIBE, _describe(base_folder), {**node, "credit": True})
    assert messages.facts(Description, credited.content).name == "Smith & Sons"


def test_node_with_another_base_says_so(base_folder: Path, node: dict[str, Any]) -> None:
    """The server decides what that means."""
    asked = DescribeTask("other", "", "f" * 64, "f" * 64)
    said = messages.facts(Description, _send(messages.DESCRIBE, asked, node).content)
    assert said.digest == bases.weights_digest(base_folder)


def test_device_is_what_the_worker_found(tmp_path: Path, base_folder: Path, node: dict[str, Any]) -> None:
    """It asked torch, which this process does not load."""
    Desk(tmp_path / "desk").service.declare(service.Holder(1, resident=True, device="NVIDIA H200"))
    said = messages.facts(Description, _send(messages.DESCRIBE, _describe(base_folder), node).content)
    assert said.device == "NVIDIA H200"


_WITHOUT_TORCH = """
import json, sys
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from moehub.federation import client_app, messages
from moehub.federation.messages import DescribeTask, Description

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
message = Message(
    messages.content(DescribeTask(*json.loads(sys.argv[1]))), dst_node_id=7, message_type=messages.DESCRIBE
)
message.metadata.__dict__["_message_id"] = "message"
context = Context(1, 7, json.loads(sys.argv[2]), RecordDict(), {})
print(messages.facts(Description, client_app.app(message, context).content).domain)
heavy = {"torch", "transformers", "peft", "trl", "datasets"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_client_app_loads_no_torch(base_folder: Path, node: dict[str, Any]) -> None:
    """Flower starts it for every message: neither importing nor describing loads what takes seconds."""
    task = _describe(base_folder)
    arguments = [json.dumps([task.base, task.revision, task.digest, task.tokenizer]), json.dumps(node)]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("law\n", 0), done.stderr


def test_node_trains_measures_and_counts(base_folder: Path, node: dict[str, Any]) -> None:
    """Without a worker this process does it; every reply names its task and carries what the server expects."""
    config = small(pair_bits=10)
    begun = start(base_folder, config)
    sent = weights.trained(begun, frozen_a=True)
    reply = _send(messages.TRAIN, training(base_folder, config, task="a" * 64), node, sent)
    trained, learned = messages.facts(Trained, reply.content), messages.arrays(reply.content)
    assert (trained.task, learned.keys()) == ("a" * 64, sent.keys())
    reply = _send(messages.EVALUATE, evaluation(base_folder, config, task="b" * 64), node, learned)
    measured = messages.facts(Evaluated, reply.content)
    assert (measured.task, measured.tokens > 0, messages.arrays(reply.content)) == ("b" * 64, True, {})
    assert 3 < measured.expert_loss < 8
    reply = _send(messages.STATISTICS, counting(base_folder, config, task="c" * 64), node)
    counted = messages.facts(Counted, reply.content)
    found = Statistics.from_arrays(dataclasses.asdict(counted), messages.arrays(reply.content))
    assert (counted.task, counted.suppressed_below, int(found.unigrams.sum()) > 100) == ("c" * 64, 3, True)


def test_message_that_comes_again_is_trained_once(
    base_folder: Path, node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower may deliver it twice: the second reply is the first one."""
    calls: list[str] = []
    real = work.perform

    def perform(kind: str, *given: Any) -> Any:
        calls.append(kind)
        return real(kind, *given)

    monkeypatch.setattr(work, "perform", perform)
    config = small()
    sent = weights.trained(start(base_folder, config), frozen_a=True)
    first, second = (_send(messages.TRAIN, training(base_folder, config), node, sent) for _ in range(2))
    assert messages.facts(Trained, first.content) == messages.facts(Trained, second.content)
    ours, theirs = messages.arrays(first.content), messages.arrays(second.content)
    assert weights.digest(ours) == weights.digest(theirs)
    assert calls == ["train"]


def _reason(reply: Message) -> str:
    assert reply.has_error()
    return str(reply.error.reason)


def test_fault_is_one_sentence_to_the_server(base_folder: Path, node: dict[str, Any]) -> None:
    """Without the folders of the node's machine."""
    wrong = training(base_folder, small(), digest="f" * 64)
    assert "the federation trains on ffffffffffff: name the right one" in _reason(_send(messages.TRAIN, wrong, node))
    nowhere = {**node, "base": "/home/smith/bases/llama"}
    reason = _reason(_send(messages.DESCRIBE, _describe(base_folder), nowhere))
    assert "there is no folder …/llama and no hub" in reason
    assert "smith" not in reason


def test_what_is_wrong_with_the_text_stays_with_its_owner(
    tmp_path: Path, base_folder: Path, node: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """The sentence may quote it: the server hears that it is wrong, the log says what."""
    data = tmp_path / "clients.jsonl"
    data.write_text('{"about": "Mr Smith"}\n')
    sent = weights.trained(start(base_folder, small()), frozen_a=True)
    reply = _send(messages.TRAIN, training(base_folder, small()), {**node, "data": str(data)}, sent)
    expected = "the node's text cannot be used: its owner finds the reason in the node's log"
    assert _reason(reply) == expected
    assert "clients.jsonl" in capfd.readouterr().err


def test_unforeseen_failure_says_its_kind_alone(
    base_folder: Path, node: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What Flower would send is whatever the exception says."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("Mr Smith")

    monkeypatch.setattr(Desk, "ask", fail)
    reply = _send(messages.TRAIN, training(base_folder, small()), node)
    assert _reason(reply) == "the node failed (ValueError): its owner finds the reason in the node's log"
    assert "Mr Smith" in capfd.readouterr().err


def test_other_domain_is_refused(base_folder: Path, node: dict[str, Any]) -> None:
    """What a node trains on is for its owner to say."""
    reason = _reason(_send(messages.TRAIN, training(base_folder, small(), domain="code"), node))
    assert reason == "this node's domain is 'law', it was asked for 'code'"


@pytest.mark.parametrize("kind", [messages.DESCRIBE, messages.TRAIN, messages.EVALUATE, messages.STATISTICS])
def test_message_without_its_facts_is_refused(node: dict[str, Any], kind: str) -> None:
    """Whoever sent it."""
    message = Message(RecordDict(), dst_node_id=7, message_type=kind)
    message.metadata.__dict__["_message_id"] = "message"
    context = Context(run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config={})
    assert "the message holds no 'facts'" in _reason(client_app.app(message, context))


def test_node_without_a_desk_says_so(base_folder: Path, node: dict[str, Any]) -> None:
    """Its configuration is checked with the first message."""
    del node["desk"]
    assert "expected the folder that its worker serves" in _reason(
        _send(messages.DESCRIBE, _describe(base_folder), node)
    )


def test_bundle_finds_the_app_where_flower_looks() -> None:
    """Flower wants a plain assignment: it reads the module before it imports it."""
    assert "\napp = ClientApp()\n" in Path(client_app.__file__).read_text(encoding="utf-8")
