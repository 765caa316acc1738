import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moehub.cli import main
from moehub.experts.folder import open_expert
from tests.builders import tiny_base
from tests.experts.trainings import same

SMALL = ["rank=2", "learning_rate=1e-2", "context_length=64", "batch_size=2", "max_steps=3"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty lines of text records."""
    file = tmp_path / "law.jsonl"
    lines = [json.dumps({"text": f"the lessee shall pay {number} for the rent. "}) for number in range(40)]
    file.write_text("\n".join(lines))
    return file


def _run(base: Path | str, *options: object, settings: list[str] | None = None, stdin: str | None = None) -> Result:
    assignments = [part for setting in (SMALL if settings is None else settings) for part in ("--set", setting)]
    arguments = ["train-expert", "--base", str(base), "--domain", "law", *map(str, options), *assignments]
    return CliRunner().invoke(main, arguments, input=stdin)


def test_command_trains_and_shows_what_came_out(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """The losses, the folder and the next command; the table on standard output, the rest on standard error."""
    result = _run(base_folder, "--data", data, "--output", tmp_path / "law")
    metrics = open_expert(tmp_path / "law").card.metrics
    assert metrics is not None
    assert (result.exit_code, f"{metrics.expert_loss:.4f}" in result.stdout) == (0, True)
    assert f"{metrics.base_loss:.4f}" in result.stdout
    assert "training law: 3/3" in result.stderr
    assert f"moehub push {tmp_path / 'law'} YOUR-NAME/law" in result.stderr.replace("\n", "")


def test_json_is_the_card_and_nothing_else(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """Standard output can be piped into a program."""
    options = ["--data", data, "--output", tmp_path / "law", "--name", "rent-law", "--json"]
    result = _run(base_folder, *options)
    value = json.loads(result.stdout)
    assert (value["card"]["name"], value["card"]["domain"]) == ("rent-law", "law")
    assert value["card"] == json.loads((tmp_path / "law" / "expert.json").read_text())
    assert (value["folder"], value["seconds"] > 0) == (str(tmp_path / "law"), True)


def test_private_counts_are_announced(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """ε and δ at the end of the training and in `inspect`, and in both places that the adapter is not private."""
    result = _run(base_folder, "--data", data, "--output", tmp_path / "law", "--private", "4")
    words = " ".join(result.stdout.split())
    assert result.exit_code == 0
    for said in ("ε = 4 at δ = 1e-06 for any one document", "without noise"):
        assert said in words
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "law")]).stdout
    assert "with noise, ε = 4 at δ = 1e-06 for any one document, the adapter without" in " ".join(shown.split())


def test_dry_run_writes_nothing(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """It says how much there is to train on, as a sentence or as JSON."""
    before = sorted(tmp_path.iterdir())
    result = _run(base_folder, "--data", data, "--output", tmp_path / "law", "--dry-run")
    assert (result.exit_code, result.stdout.startswith("would train on 3")) == (0, True)
    planned = json.loads(_run(base_folder, "--data", data, "--output", tmp_path / "x", "--dry-run", "--json").stdout)
    assert (planned["steps"], planned["examples"] + planned["held_out"]) == (3, 40)
    assert sorted(tmp_path.iterdir()) == before


def test_settings_come_from_a_file_and_the_command_line(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """`--set` goes before the file, the file before the defaults; several data files are one."""
    (tmp_path / "train.yaml").write_text("rank: 3\nalpha: 6\nmax_steps: 1\n")
    (tmp_path / "more.txt").write_text("the rent " * 50)
    options = ["--data", data, "--data", tmp_path / "more.txt", "--output", tmp_path / "law"]
    options += ["--config", tmp_path / "train.yaml", "--json"]
    card = json.loads(_run(base_folder, *options, settings=["alpha=12", "license=mit"]).stdout)["card"]
    assert (card["rank"], card["alpha"], card["license"], card["stages"][0]["steps"]) == (3, 12, "mit", 1)


def test_standard_input_is_data(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """`--data -` trains on what is piped in, as on the file."""
    piped = _run(base_folder, "--data", "-", "--output", tmp_path / "piped", stdin=data.read_text())
    _run(base_folder, "--data", data, "--output", tmp_path / "law")
    assert piped.exit_code == 0
    assert same(tmp_path / "piped", tmp_path / "law")


def test_help_has_an_example() -> None:
    """`--help` shows how it is done."""
    result = CliRunner().invoke(main, ["train-expert", "--help"])
    assert (result.exit_code, "moehub train-expert --base org/base --domain law" in result.stdout) == (0, True)


def _bad_inputs() -> dict[str, tuple[dict[str, Any], int, str]]:
    """Name → changes to the command, exit code, what the sentence says."""
    text = '{"text": "the rent"}'
    long = json.dumps({"prompt": "the rent", "completion": "shall be paid " * 500})
    return {
        "no data": ({"content": ""}, 1, "law.jsonl is empty"),
        "missing file": ({"options": ["--data", "nowhere.txt"]}, 1, "nowhere.txt does not exist"),
        "another encoding": ({"content": b'{"text": "caf\xe9"}'}, 1, "not UTF-8: byte 0xe9 at offset 13"),
        "malformed line": ({"content": f"{text}\n{{"}, 1, "line 2 is no JSON"),
        "unknown fields": ({"content": '{"body": "the rent"}'}, 1, "line 1 has the fields body; expected messages"),
        "too long": ({"content": f"{text}\n{long}"}, 1, "line 2 is"),
        "unknown setting": ({"settings": ["rang=3"]}, 2, "unknown key 'rang'"),
        "contradiction": ({"settings": ["rank=0"]}, 2, "rank = 0, expected at least 1"),
        "no setting": ({"settings": ["rank"]}, 2, "expected key=value"),
        "missing settings file": ({"options": ["--config", "nowhere.yaml"]}, 2, "cannot read the settings"),
        "unknown targets": ({"settings": ["targets=query"]}, 2, "the linears of this base are"),
        "beyond the context": ({"settings": ["context_length=9999"]}, 2, "the base takes at most 256"),
        "bad name": ({"options": ["--name", "The Law"]}, 1, "name 'The Law' cannot be used"),
        "divergence": ({"settings": ["learning_rate=1e30", "warmup=0", "clip=0"]}, 1, "lower learning_rate"),
        "no such base": ({"base": "nowhere/at/all"}, 1, "there is no folder nowhere/at/all"),
        "no option": ({"options": ["--epochs", "3"]}, 2, "No such option"),
    }


@pytest.mark.parametrize("case", _bad_inputs())
def test_bad_input_is_one_sentence(base_folder: Path, tmp_path: Path, case: str) -> None:
    """No traceback, the exit code of the kind of fault, nothing left behind but the data."""
    changes, code, sentence = _bad_inputs()[case]
    content = changes.get("content", "\n".join(json.dumps({"text": f"the rent is {n}"}) for n in range(40)))
    file = tmp_path / "law.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = _run(
        changes.get("base", base_folder),
        *("--data", file, "--output", tmp_path / "law", *changes.get("options", [])),
        settings=[*SMALL, *changes.get("settings", [])],
    )
    assert (result.exit_code, sentence in result.stderr) == (code, True), result.stderr
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert not (tmp_path / "law").exists()


def test_base_that_is_no_causal_model_is_refused(data: Path, tmp_path: Path) -> None:
    """A model that fills in blanks is no causal one, although transformers could load it as one."""
    from transformers import BertConfig

    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(tmp_path / "bert")
    result = _run(tmp_path / "bert", "--data", data, "--output", tmp_path / "law")
    assert (result.exit_code, "is a 'bert' model, expected a causal language model" in result.stderr) == (1, True)


def test_base_with_truncated_weights_is_refused(data: Path, tmp_path: Path) -> None:
    """A download that broke off is named."""
    folder = tiny_base(tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    result = _run(folder, "--data", data, "--output", tmp_path / "law")
    assert (result.exit_code, "model.safetensors" in result.stderr or "weights" in result.stderr) == (1, True)
    assert "Traceback" not in result.output


def test_existing_expert_is_replaced_only_if_asked(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """The refusal names --overwrite."""
    options = ["--data", data, "--output", tmp_path / "law"]
    assert _run(base_folder, *options).exit_code == 0
    refused = _run(base_folder, *options)
    assert (refused.exit_code, "--overwrite" in refused.stderr) == (1, True)
    assert _run(base_folder, *options, "--overwrite").exit_code == 0
    assert open_expert(tmp_path / "law").card.version == 2


def test_killed_training_goes_on(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """Killed without warning, it leaves no expert; --resume makes the one that an unkilled training makes."""
    settings = [*SMALL[:-1], "max_steps=80", "save_every=10"]
    command = [sys.executable, "-m", "moehub", "train-expert", "--base", str(base_folder), "--domain", "law"]
    command += ["--data", str(data), "--output", str(tmp_path / "law")]
    command += [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("law.training/checkpoint-*/moehub.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["law.jsonl", "law.training"]
    resumed = _run(base_folder, "--data", data, "--output", tmp_path / "law", "--resume", settings=settings)
    assert (resumed.exit_code, "resumed" in resumed.stderr or "80/80" in resumed.stderr) == (0, True)
    _run(base_folder, "--data", data, "--output", tmp_path / "unkilled", settings=settings)
    assert same(tmp_path / "law", tmp_path / "unkilled")
    assert not (tmp_path / "law.training").exists()


def test_two_processes_train_one_expert(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """Under a launcher each step takes rows from both, the first writes, and only the first speaks."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "moehub", "train-expert", "--base", str(base_folder), "--domain", "law", "--json"]
    command += ["--data", str(data), "--output", str(tmp_path / "law")]
    command += [part for setting in [*SMALL[:-1], "epochs=1"] for part in ("--set", setting)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    alone = json.loads(_run(base_folder, "--data", data, "--output", tmp_path / "x", "--dry-run", "--json").stdout)
    stage = json.loads(result.stdout)["card"]["stages"][0]
    assert stage["steps"] == -(-alone["rows"] // 4)
    assert result.stderr.count("training law: 0/") == 1
    assert open_expert(tmp_path / "law").card.name == "law"


@pytest.fixture
def better(tmp_path: Path) -> Path:
    """Preferences."""
    file = tmp_path / "better.jsonl"
    records = [{"instruction": f"{n}+{n}?", "chosen": f"{2 * n}.", "rejected": f"no {n}"} for n in range(30)]
    file.write_text("\n".join(map(json.dumps, records)))
    return file


def test_a_later_stage_starts_from_an_expert(base_folder: Path, data: Path, better: Path, tmp_path: Path) -> None:
    """The table shows what each stage was worth; the shape is the start's."""
    assert _run(base_folder, "--data", data, "--output", tmp_path / "one").exit_code == 0
    options = ["--stage", "dpo", "--from", tmp_path / "one", "--data", better, "--output", tmp_path / "two"]
    result = _run(base_folder, *options, settings=[part for part in SMALL if "rank" not in part])
    assert result.exit_code == 0, result.stderr
    assert re.search(r"pretrain: held-out loss +│ \d\.\d{4} → \d\.\d{4}", result.stdout)
    assert re.search(r"dpo: held-out preference accuracy +│ [01]\.\d{4} → [01]\.\d{4}", result.stdout)
    assert [stage.kind for stage in open_expert(tmp_path / "two").card.stages] == ["pretrain", "dpo"]


def test_a_chain_runs_from_one_file(base_folder: Path, data: Path, better: Path, tmp_path: Path) -> None:
    """Options of the command line are every stage's; files are relative to it."""
    chain = tmp_path / "stages.yaml"
    stages = [{"stage": "pretrain", "data": data.name}, {"stage": "reward", "data": better.name},
              {"stage": "kto", "data": better.name, "batch_size": 4}]  # fmt: skip
    chain.write_text(json.dumps({"stages": stages}))
    result = _run(base_folder, "--config", chain, "--output", tmp_path / "law")
    assert result.exit_code == 0, result.stderr
    assert "stage 3 of 3: kto" in result.stderr
    assert [stage.kind for stage in open_expert(tmp_path / "law").card.stages] == ["pretrain", "kto"]
    assert open_expert(tmp_path / "law.reward").card.purpose == "reward"


def test_a_reward_model_is_not_offered_to_publish(base_folder: Path, better: Path, tmp_path: Path) -> None:
    """The table calls it what it is."""
    result = _run(base_folder, "--stage", "reward", "--data", better, "--output", tmp_path / "rating")
    assert result.exit_code == 0, result.stderr
    assert "reward law on" in result.stdout
    assert "moehub push" not in result.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "--data is missing"),
        (["--data", "a.txt", "--from", "nowhere"], "--from 'nowhere' is no folder"),
        (["--data", "a.txt", "--stage", "ppo"], "'ppo' is not one of"),
        (["--data", "a.txt", "--method", "lokr"], "'lokr' is not one of"),
        (["--data", "a.txt", "--stage", "rl", "--reward", "exact=much"], "a name and a number"),
    ],
)
def test_options_that_make_no_training_are_bad_usage(
    base_folder: Path, tmp_path: Path, options: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and one sentence."""
    (tmp_path / "a.txt").write_text("some text")
    monkeypatch.chdir(tmp_path)
    result = _run(base_folder, *options, "--output", tmp_path / "law")
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


def test_stages_have_their_own_data(base_folder: Path, data: Path, tmp_path: Path) -> None:
    """What belongs to one stage cannot be said of several."""
    chain = tmp_path / "stages.yaml"
    chain.write_text(json.dumps({"stages": [{"stage": "sft", "data": data.name}]}))
    result = _run(base_folder, "--config", chain, "--data", data, "--output", tmp_path / "law")
    assert (result.exit_code, "drop them" in result.stderr) == (2, True)


def test_the_preview_knows_every_stage(base_folder: Path, better: Path, tmp_path: Path) -> None:
    """Steps and examples, without loading a weight."""
    options = ["--stage", "dpo", "--data", better, "--output", tmp_path / "x", "--dry-run", "--json"]
    result = _run(base_folder, *options, settings=["context_length=64", "holdout=0.2", "batch_size=4"])
    value = json.loads(result.stdout)
    assert (value["kind"], value["examples"] + value["held_out"]) == ("dpo", 30)
    assert value["steps"] == -(-value["examples"] // 4)


def test_a_policy_is_rewarded_by_name(base_folder: Path, tmp_path: Path) -> None:
    """Options and settings say the same; the table shows the reward before and after."""
    file = tmp_path / "sums.jsonl"
    file.write_text("\n".join(json.dumps({"instruction": f"{n}+{n}?", "answer": 2 * n}) for n in range(30)))
    small = ["batch_size=8", "generations=4", "max_new_tokens=8", "max_steps=2", "context_length=64"]
    options = ["--stage", "rl", "--data", file, "--reward", "exact=0.5", "--output"]
    result = _run(base_folder, *options, tmp_path / "one", settings=small)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"rl: held-out reward +│ \d\.\d{4} → \d\.\d{4}, -?\d\.\d{4} ", result.stdout)
    again = _run(base_folder, *options[:4], "--output", tmp_path / "other",
                 settings=[*small, "rewards={exact: 0.5}"])  # fmt: skip
    assert again.exit_code == 0, again.stderr
    assert same(tmp_path / "one", tmp_path / "other")


def test_a_chain_of_three_stages_killed_in_each_goes_on(
    base_folder: Path, data: Path, better: Path, tmp_path: Path
) -> None:
    """Without warning, as soon as a stage has a checkpoint; the expert is that of a chain that nobody killed."""
    chain = tmp_path / "stages.yaml"
    stages = [{"stage": "pretrain", "data": data.name}, {"stage": "dpo", "data": better.name},
              {"stage": "kto", "data": better.name, "batch_size": 4}]  # fmt: skip
    chain.write_text(json.dumps({"stages": stages}))
    settings = [*SMALL[:-1], "max_steps=24", "save_every=2"]
    command = [sys.executable, "-m", "moehub", "train-expert", "--base", str(base_folder), "--domain", "law"]
    command += ["--resume"]
    command += ["--config", str(chain), "--output", str(tmp_path / "law")]
    command += [part for setting in settings for part in ("--set", setting)]
    for place in ("law.stages/1-pretrain.training", "law.stages/2-dpo.training", "law.training"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob(f"{place}/checkpoint-*/moehub.json")):
            assert process.poll() is None, place
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "law").exists()
    resumed = _run(base_folder, "--config", chain, "--output", tmp_path / "law", "--resume", settings=settings)
    assert resumed.exit_code == 0, resumed.stderr
    assert "stage 2 of 3: dpo, finished before" in resumed.stderr
    assert _run(base_folder, "--config", chain, "--output", tmp_path / "unkilled", settings=settings).exit_code == 0
    assert same(tmp_path / "law", tmp_path / "unkilled")
    assert not [path for path in tmp_path.glob("law.*") if path.is_dir()]


def test_two_processes_train_a_chain(base_folder: Path, data: Path, better: Path, tmp_path: Path) -> None:
    """They go from stage to stage together; the first alone speaks and tidies up."""
    chain = tmp_path / "stages.yaml"
    stages = [{"stage": "pretrain", "data": data.name}, {"stage": "reward", "data": better.name},
              {"stage": "dpo", "data": better.name}]  # fmt: skip
    chain.write_text(json.dumps({"stages": stages}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "moehub"]
    command += ["train-expert", "--base", str(base_folder), "--domain", "law", "--json", "--config", str(chain)]
    command += ["--output", str(tmp_path / "law"), *(part for setting in SMALL for part in ("--set", setting))]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr
    assert [stage["kind"] for stage in json.loads(result.stdout)["card"]["stages"]] == ["pretrain", "dpo"]
    assert result.stderr.count("stage 2 of 3: reward") == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["law", "law.reward"]
