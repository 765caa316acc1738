"""Model cards: the README.md that a hub shows, made from the manifest alone.

The same card gives the same text to the byte: no dates, no machine. The front matter follows the
Hugging Face conventions, so that `list_models(filter="base_model:adapter:org/base")` finds an expert;
the mapping under `moehub` holds what conventions have no word for, so that a hub can be listed without
opening every repo. Everything in a card is a stranger's text: it is quoted wherever it is shown.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from moehub import config
from moehub.card import (
    ADAPTER_WEIGHTS,
    CURVES_PLOT,
    LOW_RANK,
    REWARD,
    BasePin,
    Card,
    Federated,
    Metrics,
    Privacy,
    Stage,
)
from moehub.errors import ConfigError

EXPERT_TAG = "moehub-expert"
REWARD_TAG = "moehub-reward-model"
MOE_TAG = "moehub-moe"
_ON_A_HUB = re.compile(r"[\w.-]+/[\w.-]+")
FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_OURS = frozenset(
    {
        "library_name",
        "base_model",
        "base_model_relation",
        "license",
        "license_name",
        "pipeline_tag",
        "model-index",
        "moehub",
    }
)
"""What the manifest decides, whatever a README says."""
_HUB_LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr
    llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1
    open-mdw openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()  # noqa: SIM905 (the list is read as a paragraph)
)
"""The identifiers that the hub accepts under `license`; any other goes to `license_name`."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the front matter says about an expert under `moehub`."""

    name: str
    domain: str
    license: str
    base: BasePin
    metrics: Metrics | None


def render_expert(card: Card) -> str:
    """Return the README.md of an expert."""
    return _page(_expert_matter(card), _expert_body(card))


def with_front_matter(card: Card, readme: str | None) -> str:
    """Return a publisher's own README.md under a front matter that says what the card says."""
    if readme is None:
        return render_expert(card)
    found = FRONT_MATTER.match(readme)
    body = readme[found.end() :] if found else readme
    try:
        own = yaml.safe_load(found[1]) if found else {}
        yaml.safe_dump(own)  # what can be read cannot always be written: a number of 5000 digits
    except config.YAML_FAULTS:
        own = {}
    ours = _expert_matter(card)
    theirs = {key: value for key, value in own.items() if key not in _OURS} if isinstance(own, dict) else {}
    tags = theirs.pop("tags", None)
    kept = [str(tag) for tag in tags if not str(tag).startswith("domain:")] if isinstance(tags, list) else []
    return _page({**ours, "tags": list(dict.fromkeys([*ours["tags"], *kept])), **theirs}, body)


def render_moe(
    *,
    name: str,
    base: BasePin,
    experts: Sequence[tuple[Card, str]],
    router: Mapping[str, Any],
    tuned: Mapping[str, Any] | None = None,
) -> str:
    """Return the README.md of a MoE.

    Args:
        name: what it is called.
        base: its base.
        experts: each with the reference it was taken from.
        router: the settings that its gate was made with.
        tuned: where its gate was tuned, the settings that it was given, and `tokens`, `rounds`, `contributors`,
            `loss_before`, `loss_after`, `held_out_tokens` and `experts`.
    """
    return _page(_moe_matter(base, experts), _moe_body(name, base, experts, router, tuned))


def render_export(
    *,
    base: str,
    experts: Sequence[tuple[Card, str]],
    library: str,
    relation: str,
    tags: Sequence[str],
    body: str,
) -> str:
    """Return the README.md of what a MoE was exported to.

    Args:
        base: the base's reference.
        experts: those whose weights are in it, each with the reference it was taken from.
        library: which one reads it, as the hub calls it.
        relation: how the hub calls what it is to its base: `merge`, `finetune` or `adapter`.
        tags: what it is called beside its domains.
        body: Markdown, below the title and above the experts.
    """
    sources = [source.partition("@")[0] for _, source in experts] if relation == "merge" else []
    rows = "\n".join(
        f"| {card.name} | {card.domain} | {_plain(card.license)} | {_source(source)} |" for card, source in experts
    )
    matter = {
        "library_name": library,
        **_base_model([base, *dict.fromkeys(sources)], relation),
        **_license({card.license for card, _ in experts}),
        "pipeline_tag": "text-generation",
        "tags": ["moehub", *tags, *sorted({f"domain:{card.domain}" for card, _ in experts})],
    }
    title = f"# {'+'.join(card.name for card, _ in experts)} on {_plain(base)}"
    table = f"## Experts\n\n| expert | domain | licence | source |\n|---|---|---|---|\n{rows}"
    return _page(matter, f"{title}\n{body}\n{table}")


def read_summary(values: Any) -> Summary | None:
    """Return the summary in a front matter's `moehub`, or None where a stranger wrote something else there."""
    if not isinstance(values, dict):
        return None
    parts: dict[str, Any] = {}
    try:
        for key, kind in (("base", BasePin), ("metrics", Metrics)):
            if isinstance(values.get(key), dict):
                parts[key] = config.from_mapping(kind, values[key], source=key)
        return config.from_mapping(Summary, {**values, **parts}, source="moehub")
    except ConfigError:
        return None


def _page(matter: Mapping[str, Any], body: str) -> str:
    front = yaml.safe_dump(dict(matter), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{body.strip()}\n"


def _expert_matter(card: Card) -> dict[str, Any]:
    summary = Summary(card.name, card.domain, card.license, card.base, card.metrics)
    return {
        "library_name": "peft",
        **_base_model([card.base.reference], "adapter"),
        **_license({card.license}),
        "pipeline_tag": "text-classification" if card.purpose == REWARD else "text-generation",
        "tags": [
            card.method if card.method in _METHODS else "peft",
            REWARD_TAG if card.purpose == REWARD else EXPERT_TAG,
            f"domain:{card.domain}",
        ],
        **({"model-index": [_results(card, card.metrics)]} if card.metrics else {}),
        "moehub": dataclasses.asdict(summary),
    }


def _results(card: Card, metrics: Metrics) -> dict[str, Any]:
    """Return the held-out loss in the hub's format for evaluation results."""
    result = {
        "task": {"type": "text-generation", "name": "Text generation"},
        "dataset": {"type": f"{card.domain}-held-out", "name": f"{card.domain}, held out by the contributor"},
        "metrics": [
            {"type": "loss", "name": "Loss in nats per token", "value": metrics.expert_loss},
            {"type": "base_loss", "name": "Loss of the base alone", "value": metrics.base_loss},
        ],
    }
    return {"name": card.name, "results": [result]}


def _base_model(references: Sequence[str], relation: str) -> dict[str, Any]:
    # A folder's name would be taken for somebody else's repo: only org/name is a base on the hub.
    found = [reference for reference in references if _ON_A_HUB.fullmatch(reference)]
    if not found:
        return {}
    return {"base_model": found[0] if len(found) == 1 else found, "base_model_relation": relation}


def _license(licenses: set[str]) -> dict[str, str]:
    names = sorted(identifier.lower() for identifier in licenses)
    if len(names) == 1 and names[0] in _HUB_LICENSES:
        return {"license": names[0]}
    return {"license": "other", "license_name": ", ".join(names)}


def _expert_body(card: Card) -> str:
    on_hub = _ON_A_HUB.fullmatch(card.base.reference) is not None
    base = card.base.reference if on_hub else f"path/to/{_plain(card.base.reference)}"
    stages = "\n".join(map(_stage_row, card.stages))
    return f"""
# {card.name}

{_what(card)}

| | |
|---|---|
| base | {_code(card.base.reference)}{f", revision {_code(card.base.revision)}" if card.base.revision else ""} |
| digest of the base's weights | {_code(card.base.digest)} |
{_shape_rows(card)}
| licence | {_plain(card.license)} |
| version | {card.version} |
{_metrics_rows(card.metrics)}
## Use

{_alone(card, base)}{_together(card, base)}
## Training

| stage | examples | tokens with a loss | steps | held out | before | after |
|---|--:|--:|--:|---|--:|--:|
{stages}
{_drawn(card)}{_federation(card.federation)}"""


def _stage_row(stage: Stage) -> str:
    counted = f"| {_plain(stage.kind)} | {stage.examples:,} | {stage.tokens:,} | {stage.steps:,} |"
    if stage.measured is None:
        return f"{counted} | | |"
    one = stage.measured
    far = "" if one.kl is None else f" ({one.kl:.4f} nats per token from its start)"
    return f"{counted} {_plain(one.metric)}, {one.count:,} | {one.before:.4f} | {one.after:.4f}{far} |"


def _what(card: Card) -> str:
    named = f"for the domain **{card.domain}** on {_code(card.base.reference)}"
    if card.purpose == REWARD:
        return f"A reward model {named}: it rates answers, and gives none. {_trained_by(card.federation)}."
    if card.method not in LOW_RANK:
        return f"A {_METHODS.get(card.method, 'PEFT')} adapter {named}, for use alone. {_trained_by(card.federation)}."
    return (
        f"A {_METHODS[card.method]} expert {named}, made to be one of many in a\n"
        f"mixture of experts with moehub. {_trained_by(card.federation)};\n"
        f"`router_stats.safetensors` holds {_counts(card.private)}"
    )


def _shape_rows(card: Card) -> str:
    if card.method not in LOW_RANK:
        return f"| method | {_plain(card.method)} |"
    return f"| rank, alpha | {card.rank}, {card.alpha:g} |\n| targets | {', '.join(map(_code, card.targets))} |"


def _alone(card: Card, base: str) -> str:
    kind, more = "AutoModelForCausalLM", ""
    if card.purpose == REWARD:
        kind, more = "AutoModelForSequenceClassification", ", num_labels=1"
    return f"""Alone, with PEFT:

```python
from peft import PeftModel
from transformers import {kind}

base = {kind}.from_pretrained("{base}"{more})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```
"""


def _together(card: Card, base: str) -> str:
    if card.purpose == REWARD:
        return f"""
To train an expert with it:

```sh
moehub train-expert --base {base} --domain {card.domain} --stage rl --from an-expert --data prompts.jsonl \\
  --set 'rewards={{reward-model: {{model: path/to/this/folder}}}}' --output better
```
"""
    if card.method not in LOW_RANK:
        return ""
    return f"""
As one of several, with moehub:

```sh
moehub merge --base {base} --expert path/to/this/folder --expert org/another --output moe
moehub generate moe "Once upon a time"
```
"""


def _drawn(card: Card) -> str:
    if CURVES_PLOT not in card.files:
        return ""
    return f"\n![What was measured while it was trained]({CURVES_PLOT})\n"


_METHODS = {
    "lora": "LoRA",
    "rslora": "LoRA",
    "dora": "DoRA",
    "prefix": "prefix-tuning",
    "p-tuning": "P-tuning",
    "ia3": "IA3",
}


def _counts(private: Privacy | None) -> str:
    counts = "counts of tokens, and of hashed pairs and triples of them: the gate is made of these."
    return counts if private is None else f"{counts}\nThey carry noise: {private}. The adapter was trained without."


def _trained_by(federation: Federated | None) -> str:
    if federation is None:
        return "It was trained on its contributor's text, which\nstays with the contributor"
    return (
        f"{federation.nodes} contributor{'' if federation.nodes == 1 else 's'} trained it together, each on text that\n"
        "never left its own machine"
    )


def _federation(federation: Federated | None) -> str:
    if federation is None:
        return ""
    named = ", ".join(map(_plain, federation.contributors))
    private = (
        f"\n| differential privacy of each contributor | ε = {federation.epsilon:.3g}, δ = {federation.delta:.3g} |"
        if federation.epsilon is not None and federation.delta is not None
        else ""
    )
    return f"""
## Federation

| | |
|---|---|
| contributors | {federation.nodes}{f", among them {named}" if named else ""} |
| rounds | {federation.rounds} |
| aggregation | {_plain(federation.aggregation)} |{private}
"""


def _metrics_rows(metrics: Metrics | None) -> str:
    if metrics is None:
        return ""
    return (
        f"| held-out loss, nats per token | {metrics.expert_loss:.4f} |\n"
        f"| the base's loss on the same {metrics.tokens:,} tokens | {metrics.base_loss:.4f} |\n"
    )


def _moe_matter(base: BasePin, experts: Sequence[tuple[Card, str]]) -> dict[str, Any]:
    sources = [source.partition("@")[0] for _, source in experts]
    return {
        "library_name": "transformers",
        **_base_model([base.reference, *dict.fromkeys(sources)], "merge"),
        **_license({card.license for card, _ in experts}),
        "pipeline_tag": "text-generation",
        "tags": ["moehub", MOE_TAG, "mixture-of-experts", *sorted({f"domain:{card.domain}" for card, _ in experts})],
    }


def _moe_body(
    name: str,
    base: BasePin,
    experts: Sequence[tuple[Card, str]],
    router: Mapping[str, Any],
    tuned: Mapping[str, Any] | None,
) -> str:
    rows = "\n".join(
        f"| {card.name} | {card.domain} | {card.rank} | {_plain(card.license)} | {_source(source)} "
        f"| {_code(card.files.get(ADAPTER_WEIGHTS, '')[:16])} |"
        for card, source in experts
    )
    settings = "\n".join(f"| {_plain(key)} | {_code(str(value))} |" for key, value in sorted(router.items()))
    return f"""
# {_plain(name)}

A sparse mixture of {len(experts)} LoRA expert{"" if len(experts) == 1 else "s"} on {_code(base.reference)}, assembled
with moehub. {_UNTUNED if tuned is None else _TUNED}

## Base

| | |
|---|---|
| reference | {_code(base.reference)}{f", revision {_code(base.revision)}" if base.revision else ""} |
| digest of the weights | {_code(base.digest)} |
| digest of the tokenizer | {_code(base.tokenizer)} |

## Experts

| expert | domain | rank | licence | source | sha256 of the weights |
|---|---|--:|---|---|---|
{rows}

`merge.lock` holds every commit and digest; `moehub merge merge.lock{_AGAIN[tuned is None]}.

## Router

| setting | value |
|---|---|
{settings}
{"" if tuned is None else _tuning(tuned)}
## Use

```python
import moehub
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

```sh
moehub generate path/to/this/folder "Once upon a time" --trace
```
"""


_UNTUNED = """Nothing was trained to assemble it: the gate follows from the experts'
token counts, and experts can be added and removed with `moehub merge --into`."""
_TUNED = """The gate follows from the experts' token counts, and was **tuned on text** afterwards
(see below): exact removal of an expert is no longer given."""
_AGAIN = {True: "` makes this folder again", False: " --untuned` makes this folder again without what was tuned"}
"""Whether it is untuned → how the sentence about the lock ends."""


def _tuning(tuned: Mapping[str, Any]) -> str:
    numbers = {key: value for key, value in tuned.items() if key not in _TUNING_FACTS}
    settings = "\n".join(f"| {_plain(key)} | {_code(f'{value:.6g}')} |" for key, value in sorted(numbers.items()))
    together = f" by {tuned['contributors']} contributors, each on its own text" if tuned["contributors"] > 1 else ""
    losses = (
        f"| held-out loss before the last round, nats per token | {tuned['loss_before']:.4f} |\n"
        f"| held-out loss now, on the same {tuned['held_out_tokens']:,} tokens | {tuned['loss_after']:.4f} |\n"
        if tuned["loss_before"] is not None and tuned["loss_after"] is not None
        else ""
    )
    rounds = "1 round" if tuned["rounds"] == 1 else f"{tuned['rounds']} rounds"
    trained = "\nThe experts were trained with it: dropping the tuning does not bring back what they were.\n"
    return f"""
## Tuning

`moehub tune-router` trained this gate on {tuned["tokens"]:,} tokens in {rounds}{together}.

**Exact removal is no longer given for this gate.** What it learned of one expert depends on all of them and on the
text that it was tuned on, so no expert can be taken out as if it had never been there, and `merge.lock` alone does not
make it again. `moehub merge --into FOLDER --untuned` drops the tuning: the gate then follows from counts alone again,
to the byte, and experts go in and out exactly.
{trained if tuned["experts"] else ""}
| | |
|---|---|
{losses}{settings}
"""


_TUNING_FACTS = frozenset(
    {"tokens", "rounds", "contributors", "loss_before", "loss_after", "held_out_tokens", "experts"}
)


def _source(source: str) -> str:
    """Return where an expert came from; a path of somebody's machine is of no use to others."""
    return _code(source) if _ON_A_HUB.fullmatch(source.partition("@")[0]) else f"folder {_code(PurePath(source).name)}"


def _plain(text: str) -> str:
    """Return a stranger's text without anything that Markdown or HTML would obey."""
    return re.sub(r"[\\`*\[\]<>|#&!]", "", " ".join(text.split()))


def _code(text: str) -> str:
    return f"`{_plain(text)}`"
