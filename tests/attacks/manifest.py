"""Step 4: configurations and cards that lie, or that make somebody's library do something else than load an adapter."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moehub.admission.at_hand import AtHand
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, STATISTICS_FILE, read_card
from moehub.experts.folder import seal
from tests.attacks import Attack
from tests.attacks.forging import Make, changed, edit, with_card, with_config
from tests.builders import tiny_base, tiny_expert
from tests.world import World

IMPORTS = {"base_model_class": "system", "parent_library": "os"}
"""https://github.com/huggingface/peft/issues/3085"""


def _in_text(name: str, change: Callable[[str], str]) -> Make:
    def rewrite(folder: Path) -> None:
        (folder / name).write_text(change((folder / name).read_text(encoding="utf-8")), encoding="utf-8")
        if name != CARD_FILE:
            seal(folder, read_card(folder))

    return changed(rewrite, sealed=False)


def _card_facts(part: str, **facts: object) -> Make:
    def rewrite(folder: Path) -> None:
        before = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))[part]
        edit(folder / CARD_FILE, **{part: before | facts})

    return changed(rewrite, sealed=False)


def _flipped(name: str) -> Make:
    """Turn a bit of the last byte, and leave the card as it was."""

    def flip(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return changed(flip, sealed=False)


def _swapped_weights(folder: Path, world: World) -> Path:
    """Put the weights of another expert under this one's card."""
    shutil.copytree(world.experts["law"], folder)
    shutil.copyfile(world.experts["math"] / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    return folder


def _unpinned(folder: Path) -> None:
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    card["files"].pop(STATISTICS_FILE)
    edit(folder / CARD_FILE, files=card["files"])


def _pins_outside(folder: Path) -> None:
    card: dict[str, Any] = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    edit(folder / CARD_FILE, files=card["files"] | {"../../../etc/passwd": "0" * 64})


def _of_another_base(folder: Path, world: World) -> Path:
    other = world.base.parent / "other-base"
    return tiny_expert(folder, other if other.is_dir() else tiny_base(other, seed=5))


def _of_another_tokenizer(folder: Path, world: World) -> Path:
    return _card_facts("base", tokenizer="0" * 64)(folder, world)


def _scaled(folder: Path) -> None:
    edit(folder / ADAPTER_CONFIG, lora_alpha=1e6)
    edit(folder / CARD_FILE, alpha=1e6)
    seal(folder, read_card(folder))


def _ranked(rank: int) -> Make:
    def rewrite(folder: Path) -> None:
        edit(folder / ADAPTER_CONFIG, r=rank, lora_alpha=rank or 1)
        edit(folder / CARD_FILE, rank=rank, alpha=rank or 1)
        seal(folder, read_card(folder))

    return changed(rewrite, sealed=False)


_NESTED = "[" * 100_000
_REGEX = "(([a-z]+)+)+$"

ATTACKS = (
    Attack("configuration that is no JSON", "config-json", _in_text(ADAPTER_CONFIG, lambda text: text[:-10])),
    Attack("configuration nested without end", "config-json", _in_text(ADAPTER_CONFIG, lambda _: _NESTED)),
    Attack("configuration that is a list", "config-json", _in_text(ADAPTER_CONFIG, lambda text: f"[{text}]")),
    Attack("rank that stands twice", "config-json", _in_text(ADAPTER_CONFIG, lambda text: '{"r": 1,' + text[1:])),
    Attack("infinite alpha", "config-json", with_config(lora_alpha=float("inf"))),
    Attack("key that nobody knows", "config-key", with_config(on_load="os.system('id')")),
    Attack("runtime configuration", "config-key", with_config(runtime_config={"ephemeral_gpu_offload": True})),
    Attack("tokenizer that runs code", "config-key",  # https://github.com/huggingface/peft/issues/2888
           with_config(tokenizer_name_or_path="evil/tokenizer", tokenizer_kwargs={"trust_remote_code": True})),
    Attack("configuration without a rank", "config-key", with_config(without="r")),
    Attack("library that is imported", "config-gadget", with_config(auto_mapping=IMPORTS)),
    Attack("megatron that is imported", "config-gadget",
           with_config(megatron_config={"a": 1}, megatron_core="antigravity")),
    Attack("module that would be imported", "config-gadget", with_config(megatron_core="megatron.evil")),
    Attack("covariances from a path", "config-gadget", with_config(corda_config={"cache_file": "/etc/passwd"})),
    Attack("initialisation that quantises", "config-gadget", with_config(loftq_config={"loftq_bits": 4})),
    Attack("initialisation from data", "config-gadget", with_config(eva_config={"rho": 2.0})),
    Attack("revision of somebody's choice", "config-gadget", with_config(revision="refs/pr/666")),
    Attack("rank that is a text", "config-value", with_config(r="4")),
    Attack("alpha of 400 digits", "config-value", with_config(lora_alpha=10**400)),
    Attack("pattern that never ends", "config-value", with_config(alpha_pattern={_REGEX: 8})),
    Attack("targets that are a pattern", "config-value", with_config(target_modules=_REGEX)),
    Attack("target that a terminal obeys", "config-value", with_config(target_modules=["q_proj", "\x1b[2J"])),
    Attack("base that a terminal obeys", "config-value", with_config(base_model_name_or_path="\x1b[2J")),
    Attack("dropout above one", "config-value", with_config(lora_dropout=7)),
    Attack("task of another kind", "config-value", with_config(task_type="SEQ_CLS")),
    Attack("modules to save", "unsupported-adapter", with_config(modules_to_save=["lm_head"])),
    Attack("inputs that are pooled", "unsupported-adapter", with_config(use_qalora=True)),
    Attack("DoRA that is a text", "config-value", with_config(use_dora="yes")),
    Attack("biases", "unsupported-adapter", with_config(bias="all")),
    Attack("layers that repeat", "unsupported-adapter", with_config(layer_replication=[[0, 1], [0, 1]])),
    Attack("embeddings that change", "unsupported-adapter", with_config(trainable_token_indices=[1])),
    Attack("adapter that wakes up by words", "unsupported-adapter", with_config(alora_invocation_tokens=[5, 6])),
    Attack("initialisation that changes the base", "unsupported-adapter", with_config(init_lora_weights="pissa")),
    Attack("adapter of another kind", "unsupported-adapter", with_config(peft_type="IA3")),
    Attack("rank of a million", "rank-limit", _ranked(1_000_000)),
    Attack("rank of nothing", "rank-limit", _ranked(0)),
    Attack("rank in one layer", "rank-limit", with_config(rank_pattern={"q_proj": 4096})),
    Attack("alpha bomb", "scale-limit", changed(_scaled, sealed=False)),
    Attack("alpha bomb in one layer", "scale-limit", with_config(alpha_pattern={"layers.0.self_attn.q_proj": 1e6})),
    Attack("negative alpha in one layer", "scale-limit", with_config(alpha_pattern={"q_proj": -8})),
    Attack("card that is no JSON", "card-json", _in_text(CARD_FILE, lambda text: text[:-10])),
    Attack("card nested without end", "card-json", _in_text(CARD_FILE, lambda _: '{"a":' + _NESTED)),
    Attack("card that says its name twice", "card-json", _in_text(CARD_FILE, lambda text: '{"name": "x",' + text[1:])),
    Attack("card with a name that climbs", "card-fields", with_card(name="../../law")),
    Attack("domain that is a tag", "card-fields", with_card(domain="law <script>")),
    Attack("name of the null expert", "card-fields", with_card(name="null")),
    Attack("card of another format", "card-fields", with_card(format=2)),
    Attack("card without a licence", "card-fields", with_card(without="license")),
    Attack("card that says more", "card-fields", with_card(homepage="https://evil.example")),
    Attack("card with a huge number", "card-fields", with_card(alpha=10**400)),
    Attack("licence that a terminal obeys", "card-values", with_card(license="\x1b]0;owned\x07")),
    Attack("loss that is no number", "card-values", _card_facts("metrics", expert_loss="nan")),
    Attack("tokens below zero", "card-values", _card_facts("metrics", tokens=-1)),
    Attack("version of nothing", "card-values", with_card(version=0)),
    Attack("digest that is a text", "card-values", _card_facts("base", digest="trust me"), lambda _: AtHand()),
    Attack("base that is a path", "card-values", _card_facts("base", reference="/home/alice/base")),
    Attack("tampered weights", "pinned-files", _flipped(ADAPTER_WEIGHTS)),
    Attack("tampered statistics", "pinned-files", _flipped(STATISTICS_FILE)),
    Attack("weights of another expert", "pinned-files", _swapped_weights),
    Attack("file that is not pinned", "pinned-files", changed(_unpinned, sealed=False)),
    Attack("file that is pinned and gone", "pinned-files",
           changed(lambda folder: (folder / STATISTICS_FILE).unlink(), sealed=False)),
    Attack("card that pins a file outside", "pinned-files", changed(_pins_outside, sealed=False)),
    Attack("card with another rank", "card-agreement", with_card(rank=8)),
    Attack("card with another alpha", "card-agreement", with_card(alpha=1)),
    Attack("card with other targets", "card-agreement", with_card(targets=["q_proj"])),
    Attack("wrong base", "base", _of_another_base),
    Attack("wrong tokenizer", "base", _of_another_tokenizer),
    Attack("reward model that is no expert", "purpose", with_card(purpose="reward")),
    Attack("licence that forbids a merge", "licence", with_card(license="cc-by-nd-4.0")),
)  # fmt: skip
