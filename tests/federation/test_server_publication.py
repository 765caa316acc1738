"""The adapters that nodes made become expert folders that anybody can use."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, README, Federated
from moehub.errors import FederationError
from moehub.experts import publication as publishing
from moehub.experts.folder import open_expert
from moehub.federation import weights
from moehub.federation.server import publication
from tests.federation.grid import FakeNode
from tests.federation.runs import FORM, conduct, nodes, settings


def test_the_frozen_factor_is_the_one_that_was_drawn(tmp_path: Path) -> None:
    """A is what the seed decides, to the bit; B is what the nodes made; no other tensor is there."""
    (expert,) = conduct(tmp_path, nodes(2), settings(seed=7))
    got, drawn = load_file(expert / ADAPTER_WEIGHTS), weights.initial(FORM.shapes(2), 7)
    assert {name: values.shape for name, values in got.items()} == FORM.shapes(2)
    for name, values in drawn.items():
        assert (got[name].tobytes() == values.tobytes()) == name.endswith(weights.A), name


def test_both_factors_are_published_where_both_are_trained(tmp_path: Path) -> None:
    """Under fedavg A changes too."""
    (expert,) = conduct(tmp_path, nodes(2), settings(aggregation="fedavg"))
    got, drawn = load_file(expert / ADAPTER_WEIGHTS), weights.initial(FORM.shapes(2), 0)
    assert not any(np.array_equal(got[name], values) for name, values in drawn.items())


def test_the_folder_is_an_expert_that_peft_loads(tmp_path: Path) -> None:
    """Its configuration says rank, alpha and targets, and its README is a model card."""
    from peft import LoraConfig

    (expert,) = conduct(tmp_path, nodes(1))
    config = LoraConfig.from_pretrained(str(expert))
    assert (config.r, config.lora_alpha, config.target_modules) == (2, 4.0, set(FORM.targets))
    assert config.base_model_name_or_path == "tiny"
    text = (expert / README).read_text()
    assert "library_name: peft" in text
    assert "| contributors | 1 |" in text
    assert (expert / ADAPTER_CONFIG).is_file()


def test_mixed_kinds_of_text_make_an_sft_stage(tmp_path: Path) -> None:
    """`pretrain` only where all nodes say so."""

    class Chat(FakeNode):
        def _trained(self, task: object, start: object) -> tuple[object, object]:  # type: ignore[override]
            import dataclasses

            facts, found = super()._trained(task, start)  # type: ignore[arg-type]
            return dataclasses.replace(facts, kind="sft"), found

    (expert,) = conduct(tmp_path, {**nodes(1), 1002: Chat(FORM, 2)})
    assert open_expert(expert).card.stages[0].kind == "sft"


def test_no_node_is_named_that_did_not_agree(tmp_path: Path) -> None:
    """Registered names and ids stay with the operator."""
    (expert,) = conduct(tmp_path, nodes(2), labels={1001: "berlin-clinic", 1002: "paris-clinic"})
    assert open_expert(expert).card.federation == Federated(nodes=2, rounds=2, aggregation="ffa")
    text = b"".join(path.read_bytes() for path in expert.iterdir())
    assert b"clinic" not in text
    assert b"1001" not in text


def test_something_else_in_the_experts_place_is_not_touched(tmp_path: Path) -> None:
    """A folder that is no expert stops the publication even with overwrite, and stays."""
    stranger = tmp_path / "experts" / "law"
    stranger.mkdir(parents=True)
    (stranger / "thesis.txt").write_text("do not lose")
    with pytest.raises(FederationError, match="is no expert and in the way"):
        conduct(tmp_path, nodes(1), overwrite=True)
    assert (stranger / "thesis.txt").read_text() == "do not lose"


def test_an_expert_that_was_written_before_a_kill_keeps_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the folder stood but before that was written down, it is written again from the kept replies."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(publication, "_announce", killed)
        with pytest.raises(KeyboardInterrupt):
            conduct(tmp_path, nodes(2))
    before, members = open_expert(tmp_path / "experts" / "law").card, nodes(2)
    (expert,) = conduct(tmp_path, members, resume=True)
    assert open_expert(expert).card == before
    asked = [dict(node.asked) for node in members.values() if isinstance(node, FakeNode)]
    assert asked == [{"query.describe": 1}] * 2


def test_an_adapter_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the expert's room refuses reaches a person with the expert's name."""

    def refuse(*_: object, **__: object) -> None:
        raise publishing.diverged("for a test")

    monkeypatch.setattr(publishing, "publish", refuse)
    with pytest.raises(FederationError, match="the expert 'law' cannot be written: the training diverged"):
        conduct(tmp_path, nodes(1))
