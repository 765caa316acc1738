import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Check, Fault, NotAtHandError, check
from moehub.admission.gate import examine
from moehub.admission.policy import Policy
from moehub.admission.registry import registered
from moehub.admission.subject import Subject
from moehub.base import find
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, EXPERT_FILES, STATISTICS_FILE
from moehub.errors import AdmissionError, ExpertError
from tests.attacks import base_at_hand
from tests.attacks.forging import changed, copied, with_tensors
from tests.attacks.sizes import header_bomb
from tests.attacks.tensors import weights_at_hand
from tests.builders import tiny_base, tiny_expert
from tests.world import World

STATIC = tuple(one for one in registered() if one.step <= 6)


@pytest.mark.parametrize("name", ["law", "code", "math"])
def test_good_experts_are_admitted(world: World, name: str) -> None:
    """Different ranks, targets and scales pass every static check, with the base's weights at hand and without."""
    for at_hand in (AtHand(), base_at_hand(world), weights_at_hand(world)):
        assert examine(world.experts[name], at_hand, checks=STATIC).refusals == ()


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "qwen3"])
def test_experts_of_other_architectures_are_admitted(architecture: str, tmp_path: Path, dora: bool) -> None:
    """Transposed linears, and names that a base saves without their beginning, are understood."""
    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 256} if architecture == "gpt2" else {}
    base = find(str(tiny_base(tmp_path / "base", architecture=architecture, **sizes)))
    transposed: dict[str, Any] = {"fan_in_fan_out": True} if architecture == "gpt2" else {}
    expert = tiny_expert(tmp_path / "expert", base.folder, targets="all-linear", use_dora=dora, **transposed)
    at_hand = AtHand(pin=base.pin(), base_config=base.load_config().to_diff_dict(), base=base)
    verdict = examine(expert, at_hand, checks=STATIC)
    assert (verdict.refusals, verdict.skipped) == ((), ())
    assert examine(expert, checks=STATIC).refusals == ()  # without the weights


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_admitted(world: World, tmp_path: Path, dtype: torch.dtype) -> None:
    """Adapters of 16 bits pass as those of 32 do."""
    make = with_tensors(lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    assert examine(make(tmp_path / "half", world), base_at_hand(world), checks=STATIC).refusals == ()


def test_ranks_and_scales_by_pattern_are_admitted(world: World, tmp_path: Path) -> None:
    """PEFT's patterns give linears ranks and scales of their own, by a name or by its end."""
    patterns: dict[str, Any] = {
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"layers.0.mlp.down_proj": 16, "v_proj": 4},
    }
    folder = tiny_expert(tmp_path / "patterned", world.base, name="patterned", **patterns)
    assert examine(folder, weights_at_hand(world), checks=STATIC).refusals == ()


def test_a_rescaled_expert_is_admitted(world: World, tmp_path: Path) -> None:
    """A times 10,000 and B by 10,000 is the same expert: only the product counts."""

    def rescale(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor * (1e4 if "lora_A" in name else 1e-4) for name, tensor in tensors.items()}

    folder = with_tensors(rescale)(tmp_path / "rescaled", world)
    for at_hand in (base_at_hand(world), weights_at_hand(world)):
        assert examine(folder, at_hand, checks=STATIC).refusals == ()


def test_an_update_is_compared_with_the_weights_where_they_are_at_hand(world: World, tmp_path: Path) -> None:
    """An update a hundred times as large as the base's weights is refused by both norms."""
    make = with_tensors(lambda tensors: {name: tensor * 10 for name, tensor in tensors.items()})
    verdict = examine(make(tmp_path / "large", world), weights_at_hand(world), checks=STATIC)
    assert {refusal.code for refusal in verdict.refusals} == {"update-norm", "update-spectrum"}
    assert "times the norm of the base's weight" in verdict.refusals[0].sentence


def test_a_header_bomb_is_refused_in_50_milliseconds(world: World, tmp_path: Path) -> None:
    """A million tensors that hold nothing, 56 MiB of header, cost neither time nor memory."""
    folder = changed(header_bomb(1_000_000))(tmp_path / "bomb", world)
    assert (folder / ADAPTER_WEIGHTS).stat().st_size >> 20 == 56
    best = 1.0
    for _ in range(3):
        begin = time.perf_counter()
        verdict = examine(folder)
        best = min(best, time.perf_counter() - begin)
    assert [refusal.code for refusal in verdict.refusals] == ["header-length"]
    assert best < 0.05


def test_no_link_is_followed(world: World, tmp_path: Path) -> None:
    """A link in the folder is refused before what it leads to is opened: here, nobody would ever finish reading."""
    folder = copied(tmp_path / "expert", world)
    (folder / CARD_FILE).unlink()
    os.mkfifo(tmp_path / "pipe")
    (folder / CARD_FILE).symlink_to(tmp_path / "pipe")
    assert [refusal.code for refusal in examine(folder).refusals] == ["linked-file"]


def test_what_is_not_at_hand_is_said(world: World) -> None:
    """Without a base, the checks that need one are not made, and say how they could be."""
    skipped = {one.code: one.reason for one in examine(world.experts["law"], checks=STATIC).skipped}
    assert sorted(skipped) == ["base", "linear-shape", "unknown-linear"]
    assert all("--base" in reason for reason in skipped.values())


def test_all_refusals_of_a_step_are_told_together_and_none_of_the_next(world: World, tmp_path: Path) -> None:
    """A publisher learns of everything that one look found; what needs what was refused is not looked at."""
    folder = copied(tmp_path / "expert", world)
    (folder / ".git").mkdir()
    (folder / "adapter_model.bin").write_bytes(b"")
    (folder / ADAPTER_WEIGHTS).write_bytes(b"")
    verdict = examine(folder)
    assert [refusal.code for refusal in verdict.refusals] == ["hidden-file", "pickle-file"]
    assert "header-length" not in verdict.seconds
    with pytest.raises(AdmissionError, match="is not admitted"):
        verdict.require()
    assert json.loads(json.dumps(verdict.to_dict()))["admitted"] is False


def test_a_thousand_faults_are_told_as_a_few(world: World, tmp_path: Path) -> None:
    """A stranger decides how many faults there are, and we how many are listed."""
    folder = copied(tmp_path / "expert", world)
    for number in range(1000):
        (folder / f"{number}.txt").touch()
    assert len(examine(folder).refusals) == 8


def test_a_folder_that_is_not_there_is_no_verdict(tmp_path: Path) -> None:
    """There is nothing to refuse: it is an error."""
    with pytest.raises(ExpertError, match="cannot be read"):
        examine(tmp_path / "nowhere")


def test_what_a_check_cannot_read_it_refuses(world: World) -> None:
    """A check that fails on an expert does not let it pass."""

    @check(1)
    def reading(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:  # noqa: ARG001
        """It can be read."""
        yield Fault("torn", "glue it")
        raise ExpertError("the card is torn: glue it")

    (refusal,) = examine(world.experts["law"], checks=[reading]).refusals
    assert (refusal.code, refusal.sentence, refusal.cure) == ("reading", "the card is torn", "glue it")


def test_a_policy_is_obeyed(world: World) -> None:
    """Whoever wants other limits gives them."""
    strict = Policy(most_rank=2, most_scale=1.0)
    codes = {refusal.code for refusal in examine(world.experts["law"], policy=strict).refusals}
    assert codes == {"rank-limit", "scale-limit"}
    assert {one.code for one in examine(world.experts["law"], policy=Policy(most_text_bytes=10)).refusals} == {
        "file-size"
    }


def test_the_gate_changes_nothing(world: World, tmp_path: Path) -> None:
    """Looking at an expert leaves its folder as it was."""
    folder = copied(tmp_path / "expert", world)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    examine(folder, weights_at_hand(world))
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_bytes_crashes_the_gate(world: World, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes a file holds, the answer is a verdict; and any change of a pinned file is refused."""
    name = data.draw(st.sampled_from([ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, STATISTICS_FILE]))
    folder = tmp_path / "fuzzed"
    folder.mkdir(exist_ok=True)
    for other in EXPERT_FILES:
        if (source := world.experts["law"] / other).exists():
            (folder / other).write_bytes(source.read_bytes())
    content = bytearray((folder / name).read_bytes())
    at = data.draw(st.integers(0, min(len(content), 2000)))
    content[at : at + data.draw(st.integers(0, 40))] = data.draw(
        st.one_of(
            st.binary(max_size=40), st.sampled_from([b"[" * 5000, b'{"a":', b"1e999", b"null", b"-1", b"true", b'"'])
        ),
    )
    (folder / name).write_bytes(content)
    verdict = examine(folder, base_at_hand(world))
    untouched = bytes(content) == (world.experts["law"] / name).read_bytes()
    assert verdict.admitted == untouched or name == CARD_FILE


def test_only_checks_of_the_steps_asked_for_are_made(world: World) -> None:
    """A merge makes the static steps alone where it has nothing for the others."""
    first = [one for one in registered() if one.step == 1]
    assert set(examine(world.experts["law"], checks=first).seconds) == {one.code for one in first}


def test_a_check_that_lacks_something_is_neither_passed_nor_failed(world: World) -> None:
    """It is told apart, with the reason."""

    def examine_nothing(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:  # noqa: ARG001
        yield Fault("dark", "wait")
        raise NotAtHandError("there is no moon: wait for the night")

    verdict = examine(world.experts["law"], checks=[Check("moon", 1, examine_nothing)])
    assert (verdict.admitted, verdict.skipped[0].reason) == (True, "there is no moon: wait for the night")
    assert dict(verdict.seconds) == {}


def test_statistics_may_be_missing(world: World, tmp_path: Path) -> None:
    """An expert without router statistics is no bad expert: a router that needs them says so."""
    folder = copied(tmp_path / "silent", world)
    (folder / STATISTICS_FILE).unlink()
    from moehub.card import read_card
    from moehub.experts.folder import seal

    seal(folder, dataclasses.replace(read_card(folder), files={}))
    assert examine(folder, base_at_hand(world), checks=STATIC).refusals == ()


def test_weights_are_written_by_the_library_as_the_gate_wants_them(world: World, tmp_path: Path) -> None:
    """What safetensors writes passes our own reading of the format, whatever the number of tensors."""
    tensors = load_file(world.experts["code"] / ADAPTER_WEIGHTS)
    folder = copied(tmp_path / "expert", world, "code")
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    codes = {refusal.code for refusal in examine(folder, checks=[one for one in STATIC if one.step <= 3]).refusals}
    assert codes == set()
