"""Models that a person names, opened to answer."""

import pytest

from moehub.answering.answerer import Sampling
from moehub.answering.endpoint import Manners
from moehub.answering.meter import Price
from moehub.errors import BaseModelError, ConfigError
from moehub.judging.opening import Access, open_answerer
from tests.answering.speaking import speaking
from tests.moehub.conftest import Small, run, small

__all__ = ["run", "small"]


@pytest.mark.parametrize("kind", ["base", "law", "moe"])
def test_a_base_an_expert_and_a_moe_answer_and_judge(small: Small, kind: str) -> None:
    """Through the same two questions, and what it costs is counted."""
    model = open_answerer(str(getattr(small, kind)), Access(base=str(small.base), price=Price(1.0, 2.0)))
    assert model.name == kind
    answer = model.answer(["the court"], Sampling(max_new_tokens=4))[0]
    assert answer.completion_tokens == 4
    assert 0 < model.yes_probability(["is it?"])[0] < 1
    assert model.meter.cost == pytest.approx((model.meter.prompt_tokens + 2 * model.meter.completion_tokens) / 1e6)


def test_an_address_names_its_model_behind_a_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key goes to the host that it belongs to, by its environment variable."""
    monkeypatch.setenv("MY_KEY", "hidden")
    with speaking(believes=lambda _: {"yes": 0.6, "no": 0.2}) as server:
        host = server.url.split("/")[2]
        access = Access(keys={host: "MY_KEY", "elsewhere.example.org": "OTHER"}, manners=Manners(votes=1))
        model = open_answerer(f"{server.url}#org/small", access)
        assert model.name == "org/small"
        assert model.yes_probability(["is it?"]) == pytest.approx([0.75])
        assert server.asked[0]["model"] == "org/small"
        assert server.headers[0]["authorization"] == "Bearer hidden"
        open_answerer(f"{server.url}#small", Access(keys={"elsewhere.example.org": "MY_KEY"})).answer(["x"])
        assert "authorization" not in server.headers[1]


def test_a_whole_shell_may_name_the_keys_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their variables; who writes the key itself there is told so, and it is not repeated."""
    monkeypatch.setenv("MY_KEY", "hidden")
    with speaking() as server:
        monkeypatch.setenv("MOEHUB_API_KEYS", f"a.example.org=OTHER {server.url.split('/')[2]}=MY_KEY")
        open_answerer(f"{server.url}#small").answer(["x"])
        assert server.headers[0]["authorization"] == "Bearer hidden"
    monkeypatch.setenv("MOEHUB_API_KEYS", "sk-secret")
    with pytest.raises(ConfigError, match="HOST=VARIABLE") as caught:
        open_answerer("http://127.0.0.1:1/v1#small")
    assert "sk-secret" not in str(caught.value)


def test_an_address_without_a_model_is_refused() -> None:
    """The sentence shows how to name one."""
    with pytest.raises(ConfigError, match=r"http://host/v1#model"):
        open_answerer("http://127.0.0.1:1/v1")


def test_what_is_not_there_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder that is no model."""
    with pytest.raises(BaseModelError):
        open_answerer(str(tmp_path_factory.mktemp("empty")))
