import dataclasses
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from moehub.card import BasePin, Federated, Measured, Privacy, Stage
from moehub.hub.model_card import Summary, read_summary, render_expert, render_moe, with_front_matter
from tests.published import PIN, paper_card


def matter(readme: str) -> dict[str, Any]:
    """Return the front matter."""
    parsed: dict[str, Any] = yaml.safe_load(readme.split("---\n")[1])
    return parsed


def test_an_experts_card_follows_the_hubs_conventions() -> None:
    """huggingface_hub reads base, relation, licence, tags and the held-out loss from it."""
    data = ModelCard(render_expert(paper_card())).data
    assert isinstance(data, ModelCardData)
    assert (data.library_name, data.base_model, data.license) == ("peft", "acme/base", "apache-2.0")
    assert data.pipeline_tag == "text-generation"
    assert data.get("base_model_relation") == "adapter"
    assert data.tags == ["lora", "moehub-expert", "domain:law"]
    assert [(result.metric_type, result.metric_value) for result in data.eval_results or []] == [
        ("loss", 4.0),
        ("base_loss", 5.0),
    ]


def test_a_base_that_is_a_folder_is_not_taken_for_somebodys_repo() -> None:
    """`base_model: llama` would point at a repo of that name, so a folder's name is left out of the front matter."""
    card = paper_card(base=BasePin("llama", "d" * 64, "e" * 64))
    assert "base_model" not in matter(render_expert(card))
    assert "`llama`" in render_expert(card)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Proprietary-7", {"license": "other", "license_name": "proprietary-7"}),
    ],
)
def test_a_licence_that_hubs_do_not_know_goes_by_its_name(given: str, expected: dict[str, str]) -> None:
    """The hub refuses unknown identifiers under `license`."""
    found = matter(render_expert(paper_card(license=given)))
    assert {key: value for key, value in found.items() if key.startswith("license")} == expected


def test_the_summary_in_the_front_matter_is_read_back() -> None:
    """What `list` shows is what the card says."""
    card = paper_card()
    found = read_summary(matter(render_expert(card))["moehub"])
    assert found == Summary("law", "law", "apache-2.0", PIN, card.metrics)


@pytest.mark.parametrize("values", [None, "law", [], {"name": "law"}, {"name": 3}])
def test_a_strangers_summary_is_read_as_none(values: object) -> None:
    """Front matter is anybody's text."""
    assert read_summary(values) is None


def test_an_expert_without_metrics_or_statistics_has_a_card_too() -> None:
    """What was not measured is not shown."""
    readme = render_expert(paper_card(metrics=None))
    assert "model-index" not in matter(readme)
    assert "held-out" not in readme


def test_counts_with_noise_are_said_to_have_it() -> None:
    """And that the adapter has none."""
    private = Privacy(2.0, 1e-6, 256, {"unigrams": 3.0})
    assert "noise" not in render_expert(paper_card())
    assert "ε = 2 at δ = 1e-06 for any one document. The adapter" in render_expert(paper_card(private=private))


def test_a_federated_experts_card_says_how_and_by_whom() -> None:
    """Nodes, rounds, aggregation and privacy; of names only those that the card holds, and as plain text."""
    federation = Federated(10, 3, "ffa", contributors=("St Mary", "a|b"), epsilon=4.2317, delta=1e-5)
    page = render_expert(paper_card(federation=federation))
    assert "10 contributors trained it together, each on text that\nnever left its own machine" in page
    assert "| contributors | 10, among them St Mary, ab |\n| rounds | 3 |\n| aggregation | ffa |" in page
    assert "ε = 4.23, δ = 1e-05" in page
    assert page.endswith("|\n")


def test_an_expert_of_one_contributor_says_nothing_of_federations() -> None:
    """And nothing of privacy that nobody gave."""
    page = render_expert(paper_card())
    assert "Federation" not in page
    assert "trained on its contributor's text" in page
    alone = render_expert(paper_card(federation=Federated(1, 2, "product")))
    assert "1 contributor trained it together" in alone
    assert "privacy" not in alone


def test_a_strangers_text_cannot_break_out_of_its_cell() -> None:
    """Markup and new lines in a card's free text are shown as plain text."""
    nasty = "x\n# Title `code` <img src=x> | [link](http://e)"
    readme = render_expert(paper_card(license=nasty, base=BasePin(nasty, "d" * 64, "e" * 64)))
    body = readme.split("---\n", 2)[2]
    assert not [line for line in body.splitlines() if line.startswith("# Title")]
    assert "<img" not in body
    assert "](http" not in body


def test_a_publishers_own_readme_keeps_its_text_and_gets_a_true_front_matter() -> None:
    """Text and further keys stay; what the manifest decides is overwritten."""
    own = (
        "---\nlicense: mit\nbase_model: other/base\ndatasets: [acme/laws]\ntags: [law, 'domain:cooking']\n---\n# Mine\n"
    )
    readme = with_front_matter(paper_card(), own)
    found = matter(readme)
    assert readme.endswith("---\n\n# Mine\n")
    assert (found["license"], found["base_model"], found["datasets"]) == ("apache-2.0", "acme/base", ["acme/laws"])
    assert found["tags"] == ["lora", "moehub-expert", "domain:law", "law"]


@pytest.mark.parametrize("own", ["# Mine\n", "---\n[broken\n---\n# Mine\n", "---\n- a list\n---\n# Mine\n"])
def test_a_readme_without_usable_front_matter_gets_one(own: str) -> None:
    """PEFT and people write READMEs that a hub cannot find an expert by."""
    assert matter(with_front_matter(paper_card(), own)) == matter(render_expert(paper_card()))


def test_bringing_a_card_up_to_date_changes_nothing_when_it_is() -> None:
    """So that pushing an expert twice makes one commit."""
    readme = render_expert(paper_card())
    assert with_front_matter(paper_card(), readme) == readme


def test_a_moes_card_lists_base_and_experts() -> None:
    """Name, domain, licence and source of each expert, and merge as the relation to what it was made of."""
    experts = [(paper_card("code"), "acme/code@" + "1" * 40), (paper_card("law", license="mit"), "/home/me/law")]
    readme = render_moe(name="both", base=PIN, experts=experts, router={"top_k": 2})
    found = matter(readme)
    assert found["base_model"] == ["acme/base", "acme/code"]
    assert found["base_model_relation"] == "merge"
    assert (found["license"], found["license_name"]) == ("other", "apache-2.0, mit")
    assert found["tags"][-2:] == ["domain:code", "domain:law"]
    assert f"| code | code | 8 | apache-2.0 | `acme/code@{'1' * 40}` |" in readme
    assert "| top_k | `2` |" in readme


def test_a_moes_card_names_no_path_of_this_machine() -> None:
    """Where an expert lay on a publisher's disk is of no use to others."""
    readme = render_moe(name="both", base=PIN, experts=[(paper_card(), "/home/me/law")], router={})
    assert "/home/me" not in readme
    assert "folder `law`" in readme


def test_equal_cards_give_equal_bytes() -> None:
    """No date and no machine goes into a model card."""
    card = paper_card()
    assert render_expert(card) == render_expert(dataclasses.replace(card))


def test_a_reward_model_is_not_listed_as_an_expert() -> None:
    """It has a tag of its own, says what it is for, and how to use it."""
    readme = render_expert(paper_card(purpose="reward", metrics=None))
    front = matter(readme)
    assert (front["pipeline_tag"], front["tags"]) == (
        "text-classification",
        ["lora", "moehub-reward-model", "domain:law"],
    )
    assert "rates answers, and gives none" in readme
    assert "AutoModelForSequenceClassification" in readme
    assert "moehub merge" not in readme


def test_the_card_tells_what_each_stage_was_worth() -> None:
    """Its number on what was held out, before and after, and the curves where they are drawn."""
    stage = Stage("rl", 1000, 50, 20, 9.0, "s" * 64, Measured("reward", -0.25, 0.5, 64, 0.031))
    card = paper_card(stages=(stage,), files={"training.png": "0" * 64})
    readme = render_expert(card)
    assert "| rl | 20 | 1,000 | 50 | reward, 64 | -0.2500 | 0.5000 (0.0310 nats per token from its start) |" in readme
    assert "(training.png)" in readme


@pytest.mark.parametrize("method", ["prefix", "<script>"])
def test_adapters_for_use_alone_are_not_offered_to_merge(method: str) -> None:
    """Whatever a stranger's card calls the method is quoted."""
    readme = render_expert(paper_card(method=method, rank=0, alpha=0.0))
    assert "for use alone" in readme
    assert "moehub merge" not in readme
    assert "<script>" not in readme
