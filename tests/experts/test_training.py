import errno
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from moehub import base as bases
from moehub.base import Base
from moehub.card import EXPERT_FILES, SIGNATURE_FILE
from moehub.errors import ConfigError, DataError, ExpertError, TrainingError
from moehub.experts import checkpoints, features, statistics
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.examples import Completion, Text, split
from moehub.experts.folder import open_expert
from moehub.experts.material import prepare
from moehub.experts.packing import pack
from moehub.experts.training import TrainConfig, train
from tests.experts.trainings import (
    COMPLETIONS,
    TEXTS,
    Interrupted,
    adapter,
    ignore_peft,
    interrupt_at,
    same,
    settings,
)


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return bases.find(str(base_folder))


@pytest.fixture(scope="module")
def expert(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An expert trained for ten steps."""
    return train(base, "law", TEXTS, tmp_path_factory.mktemp("experts") / "law", settings()).folder


def test_training_makes_an_expert(expert: Path) -> None:
    """The folder holds the five files and nothing else, the card describes them, and the loss went down."""
    card = open_expert(expert).card
    assert {path.name for path in expert.iterdir()} == EXPERT_FILES - {SIGNATURE_FILE}
    assert [path.name for path in expert.parent.iterdir()] == ["law"]
    assert (card.name, card.domain, card.rank, card.alpha, card.version) == ("law", "law", 2, 32.0, 1)
    assert card.metrics is not None
    assert card.metrics.expert_loss < card.metrics.base_loss - 0.05
    (stage,) = card.stages
    assert (stage.kind, stage.steps) == ("pretrain", 10)


def test_card_names_the_base_and_the_libraries(base: Base, expert: Path) -> None:
    """The pin is the base's, and every library that had a hand in it has its version."""
    card = open_expert(expert).card
    assert card.base == base.pin()
    assert card.packages.keys() == {"accelerate", "moehub", "peft", "torch", "transformers", "trl"}


def test_no_path_of_this_machine_is_published(base: Base, expert: Path) -> None:
    """Neither the base's folder nor the output's is in any file; the base is named by its reference."""
    for path in expert.iterdir():
        content = path.read_bytes()
        assert str(base.folder.parent).encode() not in content
        assert str(expert.parent).encode() not in content
    assert f'"base_model_name_or_path": "{base.reference}"' in (expert / "adapter_config.json").read_text()


@ignore_peft
def test_peft_loads_the_folder_and_the_losses_are_those_of_the_card(base: Base, expert: Path) -> None:
    """The published losses can be measured again, document by document, with PEFT and transformers alone."""
    metrics = open_expert(expert).card.metrics
    assert metrics is not None
    tokenizer = base.load_tokenizer()
    material = prepare(tokenizer, TEXTS, settings(), longest=256)
    rows = pack(material.held_out, 64, join=False)
    plain = base.load_model(dtype=torch.float32)
    base_loss, tokens = evaluate_loss(plain, rows)
    expert_loss, _ = evaluate_loss(PeftModel.from_pretrained(plain, str(expert)), rows)
    assert metrics.tokens == tokens
    assert (metrics.base_loss, metrics.expert_loss) == pytest.approx((base_loss, expert_loss), abs=1e-5)


def test_statistics_count_the_training_split(base: Base, expert: Path) -> None:
    """Every document of it, as the tokenizer gives it, one by one; what was held out is not counted."""
    tokenizer = base.load_tokenizer()
    training, held = split(TEXTS, TrainConfig().holdout)
    assert held
    unigrams, pairs = torch.zeros(len(tokenizer), dtype=torch.int64), torch.zeros(1 << 16, dtype=torch.int64)
    for example in training:
        assert isinstance(example, Text)
        ids = tokenizer(example.text)["input_ids"]
        for token in ids:
            unigrams[token] += 1
        for previous, current in pairwise(ids):
            pairs[(previous * 1000003 + current) % (1 << 16)] += 1
    found = open_expert(expert).statistics()
    assert torch.equal(found.unigrams, unigrams.where(unigrams >= 3, 0))
    assert torch.equal(found.pairs, pairs.where(pairs >= 3, 0))
    assert (found.tokenizer, found.suppressed_below) == (bases.tokenizer_digest(tokenizer), 3)
    assert found.features is None


def test_settings_of_the_statistics_are_obeyed(base: Base, tmp_path: Path) -> None:
    """Buckets, suppression and feature sums are as asked for; the sums are those of the documents."""
    config = settings(max_steps=1, pair_bits=9, triple_bits=10, suppress_below=0, features=True)
    found = train(base, "law", TEXTS, tmp_path / "law", config).statistics()
    documents = [one.seen for one in prepare(base.load_tokenizer(), TEXTS, config, longest=256).documents]
    expected = statistics.count(documents, tokenizer=found.tokenizer, vocabulary=found.vocabulary, pair_bits=9)
    assert torch.equal(found.pairs, expected.pairs)
    assert torch.equal(found.unigrams, expected.unigrams)
    embedding = base.load_model(dtype=torch.float32).get_input_embeddings().weight
    sums = features.sums(documents, embedding, features.recipe_for(32))
    assert found.features is not None
    assert (found.features.recipe, found.features.count) == (sums.recipe, sum(map(len, documents)))
    assert torch.equal(found.features.gram, sums.gram)


def test_private_counts_are_new_each_time_and_the_adapter_is_the_same(
    base: Base, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Card and statistics say how private; noise comes from no seed; that it hid everything is said."""
    experts = [
        train(base, "law", TEXTS * copies, tmp_path / name, settings(private=2.0, max_steps=1))
        for name, copies in (("first", 50), ("second", 50), ("few", 1))
    ]
    first, second, few = (one.statistics() for one in experts)
    assert first.private is not None
    assert (first.private, first.private.epsilon) == (experts[0].card.private, 2.0)
    assert not torch.equal(first.unigrams, second.unigrams)
    assert same(experts[0].folder, experts[1].folder)
    assert int(first.unigrams.sum()) > 1000
    if not int(few.unigrams.sum()):
        assert "the noise hides all of this text (ε = 2 at δ = 1e-06" in capfd.readouterr().err.replace("\n", " ")


def test_the_same_training_gives_the_same_bytes(base: Base, expert: Path, tmp_path: Path) -> None:
    """All but the card, which says how many seconds it took, is the same to the byte."""
    again = train(base, "law", TEXTS, tmp_path / "again", settings()).folder
    for name in EXPERT_FILES - {"expert.json", SIGNATURE_FILE}:
        assert (again / name).read_bytes() == (expert / name).read_bytes()


def test_another_seed_gives_another_expert(base: Base, expert: Path, tmp_path: Path) -> None:
    """The seed is not ignored."""
    assert not same(train(base, "law", TEXTS, tmp_path / "other", settings(seed=1)).folder, expert)


def test_learned_tokens_are_those_of_answers(base: Base, tmp_path: Path) -> None:
    """Two epochs learn each answer of the training split twice, and no prompt."""
    config = settings(max_steps=None, epochs=2)
    (stage,) = train(base, "sums", COMPLETIONS, tmp_path / "sums", config).card.stages
    tokenizer = base.load_tokenizer()
    training, _ = split(COMPLETIONS, config.holdout)
    answers = sum(len(tokenizer(one.completion)["input_ids"]) + 1 for one in training if isinstance(one, Completion))
    assert (stage.kind, stage.tokens, stage.examples) == ("sft", 2 * answers, len(training))


def test_dividing_a_step_gives_the_same_expert(base: Base, tmp_path: Path) -> None:
    """Accumulation weighs tokens, not parts, so memory is all that it changes; so does gradient checkpointing."""
    folders = {}
    ways: dict[str, dict[str, Any]] = {
        "whole": {},
        "divided": {"accumulation": 4},
        "recomputed": {"gradient_checkpointing": True},
    }
    for name, changes in ways.items():
        config = settings(batch_size=4, max_steps=3, targets="q_proj,down_proj", **changes)
        folders[name] = train(base, "sums", COMPLETIONS + TEXTS, tmp_path / name, config).folder
    whole = adapter(folders.pop("whole"))
    for folder in folders.values():
        for name, weights in adapter(folder).items():
            torch.testing.assert_close(weights, whole[name], atol=2e-5, rtol=1e-4)


def test_bfloat16_base_trains_a_float32_adapter(base: Base, tmp_path: Path) -> None:
    """Half the memory for the base, full precision for what is learned."""
    found = train(base, "law", TEXTS, tmp_path / "law", settings(dtype="bfloat16"))
    assert {weights.dtype for weights in adapter(found.folder).values()} == {torch.float32}
    assert found.card.metrics is not None
    assert found.card.metrics.expert_loss < found.card.metrics.base_loss


def test_progress_goes_to_the_observer_and_results_nowhere(
    base: Base, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is told with its loss; nothing is written to standard output and nobody is asked anything."""
    asked: list[object] = []

    def no_network(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise OSError("there is no network")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    told: list[tuple[int, float]] = []
    train(base, "law", TEXTS, tmp_path / "law", settings(), on_step=lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == list(range(1, 11))
    assert all(math.isfinite(loss) for _, loss in told)
    printed = capfd.readouterr()
    assert (asked, printed.out) == ([], "")
    assert "training law: 10/10" in printed.err
    assert "Warning" not in printed.err


def test_single_conversation_has_no_metrics(base: Base, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing can be held out, and that is said."""
    assert train(base, "sums", COMPLETIONS[:1], tmp_path / "sums", settings(max_steps=1)).card.metrics is None
    assert "nothing was held out" in capfd.readouterr().err


@pytest.mark.parametrize("step", [3, 5, 9])
def test_resumed_training_equals_an_uninterrupted_one(base: Base, tmp_path: Path, step: int) -> None:
    """Interrupted before the first checkpoint, in an epoch, or in a later one: the same weights to the bit."""
    config = settings(dropout=0.3)
    whole = train(base, "law", TEXTS, tmp_path / "whole", config).folder
    output = tmp_path / "law"
    with pytest.raises(Interrupted):
        train(base, "law", TEXTS, output, config, on_step=interrupt_at(step))
    assert not output.exists()
    told: list[int] = []
    resumed = train(base, "law", TEXTS, output, config, resume=True, on_step=lambda now, _: told.append(now))
    assert told[0] == 1 + step // 4 * 4
    assert same(resumed.folder, whole)
    assert resumed.card.stages[0].tokens == open_expert(whole).card.stages[0].tokens
    assert not checkpoints.working_folder(output).exists()


def test_interruption_after_the_last_step_loses_no_step(
    base: Base, expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only measuring and writing were left, resuming trains no further step."""
    output = tmp_path / "law"
    monkeypatch.setattr("moehub.experts.training.publish", _interrupt)
    with pytest.raises(Interrupted):
        train(base, "law", TEXTS, output, settings())
    monkeypatch.undo()
    told: list[int] = []
    resumed = train(base, "law", TEXTS, output, settings(), resume=True, on_step=lambda now, _: told.append(now))
    assert told == []
    assert same(resumed.folder, expert)
    assert resumed.card.metrics == open_expert(expert).card.metrics


def _interrupt(*_: object, **__: object) -> None:
    raise Interrupted


def test_resuming_another_training_is_refused(base: Base, tmp_path: Path) -> None:
    """Changed data or settings are named, and the checkpoints stay for whoever changes them back."""
    output = tmp_path / "law"
    with pytest.raises(Interrupted):
        train(base, "law", TEXTS, output, settings(), on_step=interrupt_at(6))
    with pytest.raises(TrainingError, match="rank was 2, now it is 3"):
        train(base, "law", TEXTS, output, settings(rank=3), resume=True)
    with pytest.raises(TrainingError, match="data was"):
        train(base, "law", TEXTS[1:], output, settings(), resume=True)
    assert train(base, "law", TEXTS, output, settings(), resume=True).card.stages[0].steps == 10


def test_starting_anew_and_nothing_to_resume_are_said(
    base: Base, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever resumes nothing, or leaves a training behind, is told."""
    output = tmp_path / "law"
    with pytest.raises(Interrupted):
        train(base, "law", TEXTS, output, settings(), resume=True, on_step=interrupt_at(5))
    assert f"there is no checkpoint in {output}.training to resume from" in capfd.readouterr().err.replace("\n", "")
    told: list[int] = []
    train(base, "law", TEXTS, output, settings(), on_step=lambda now, _: told.append(now))
    assert "starting anew: removing the unfinished training" in capfd.readouterr().err.replace("\n", "")
    assert told[0] == 1


def test_an_expert_is_not_replaced_unless_asked(base: Base, tmp_path: Path) -> None:
    """Without `overwrite` it is refused at once; with it the version grows, and a failure leaves the old one."""
    output = tmp_path / "law"
    config = settings(max_steps=1)
    train(base, "law", TEXTS, output, config)
    with pytest.raises(TrainingError, match=r"already holds the expert 'law', version 1: .*--overwrite"):
        train(base, "law", TEXTS, output, config)
    with pytest.raises(Interrupted):
        train(base, "law", TEXTS, output, config, overwrite=True, on_step=interrupt_at(1))
    assert open_expert(output).card.version == 1
    assert train(base, "law", TEXTS, output, config, overwrite=True).card.version == 2


def test_anything_else_is_never_replaced(base: Base, tmp_path: Path) -> None:
    """A folder with somebody's files, or a file, stays even with `overwrite`; an empty folder is used."""
    config = settings(max_steps=1)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(TrainingError, match=f"{name} exists and is no expert"):
            train(base, "law", TEXTS, tmp_path / name, config, overwrite=True)
    (tmp_path / "empty").mkdir()
    assert train(base, "law", TEXTS, tmp_path / "empty", config).name == "law"


def test_divergence_is_one_sentence_and_makes_no_expert(base: Base, tmp_path: Path) -> None:
    """A learning rate far too high stops the training where the numbers leave the finite."""
    with pytest.raises(TrainingError, match=r"the training diverged \(at step \d+ .*\): lower learning_rate"):
        train(base, "law", TEXTS, tmp_path / "law", settings(learning_rate=1e30, warmup=0, clip=0))
    with pytest.raises(TrainingError, match=r"the training diverged \(the held-out loss is nan\)"):
        train(base, "law", TEXTS, tmp_path / "law", settings(learning_rate=1e30, warmup=0, clip=0, max_steps=1))
    assert not (tmp_path / "law").exists()


def test_full_disk_at_a_checkpoint_keeps_the_one_before(
    base: Base, expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence with the cure; after making room, resuming gives the expert of an untroubled training."""
    output, save, written = tmp_path / "law", torch.save, []

    def save_until_full(value: object, file: str, **options: object) -> None:
        if "checkpoint-8" in str(file):
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
        save(value, file, **options)  # type: ignore[arg-type]
        written.append(file)

    monkeypatch.setattr(torch, "save", save_until_full)
    with pytest.raises(TrainingError, match=r"is full: free some space.*--resume"):
        train(base, "law", TEXTS, output, settings())
    monkeypatch.undo()
    assert sorted(path.name for path in checkpoints.working_folder(output).glob("checkpoint-*")) == ["checkpoint-4"]
    assert same(train(base, "law", TEXTS, output, settings(), resume=True).folder, expert)


def test_full_disk_at_the_end_loses_no_training(
    base: Base, expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No half expert is left, and resuming only has to write it."""
    output = tmp_path / "law"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(statistics.Statistics, "save", full)
    with pytest.raises(TrainingError, match="is full"):
        train(base, "law", TEXTS, output, settings())
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["law.training"]
    assert same(train(base, "law", TEXTS, output, settings(), resume=True).folder, expert)


def test_too_little_memory_is_one_sentence(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cures are settings."""

    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("moehub.experts.loop.summed_loss", exhausted)
    with pytest.raises(TrainingError, match=r"too little memory .* accumulation, gradient_checkpointing=true"):
        train(base, "law", TEXTS, tmp_path / "law", settings())


def test_what_cannot_be_trained_is_refused_before_anything_is_written(base: Base, tmp_path: Path) -> None:
    """Names, settings and data are checked first."""
    output = tmp_path / "law"
    with pytest.raises(ExpertError, match="domain 'The Law' cannot be used"):
        train(base, "The Law", TEXTS, output)
    with pytest.raises(ExpertError, match="name 'null' cannot be used"):
        train(base, "law", TEXTS, output, name="null")
    with pytest.raises(ConfigError, match="context_length = 4096"):
        train(base, "law", TEXTS, output, settings(context_length=4096))
    with pytest.raises(DataError, match="nothing to learn"):
        train(base, "law", [Text("")], output)
    assert list(tmp_path.iterdir()) == []
