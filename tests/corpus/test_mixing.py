from collections import Counter
from pathlib import Path

import pytest

from moehub.corpus.mixing import Mix, Source, mix
from moehub.errors import ConfigError, DataError
from tests.corpus.texts import read, write


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """Two sources: a hundred short records, and forty that are nine times as long."""
    law = write(tmp_path / "law.jsonl", [{"text": f"l{number:03d}"} for number in range(100)])
    prose = write(tmp_path / "prose.jsonl", [{"text": f"p{number:03d}" * 9} for number in range(40)])
    return [Source("law", [law], 3), Source("prose", [prose], 1)]


def texts(mixed: Mix) -> list[str]:
    return [item.text for item in mixed.drawn]


def test_shares_are_of_records(sources: list[Source]) -> None:
    """Each draw goes to whom is furthest behind, so every beginning has the shares too."""
    mixed = mix(sources, records=80)
    assert [(share.drawn, share.asked, share.reached) for share in mixed.shares] == [(60, 0.75, 0.75), (20, 0.25, 0.25)]
    assert Counter(text[0] for text in texts(mixed)[:40]) == {"l": 30, "p": 10}
    assert max(Counter(texts(mixed)).values()) == 1


def test_shares_of_tokens_are_of_characters(sources: list[Source]) -> None:
    """Four to a token; one record more or less."""
    mixed = mix(sources, tokens=100)
    law, prose = mixed.shares
    assert 400 <= law.characters + prose.characters < 400 + 36
    assert abs(law.reached - 0.75) < 36 / 400
    assert law.characters == 4 * law.drawn


def test_equal_seeds_draw_equally(sources: list[Source]) -> None:
    """Another seed draws others; what one source gives does not depend on the other."""
    assert texts(mix(sources, records=20)) == texts(mix(sources, records=20))
    assert texts(mix(sources, records=20)) != texts(mix(sources, records=20, seed=1))
    alone = texts(mix(sources[:1], records=15))
    assert [text for text in texts(mix(sources, records=20)) if text[0] == "l"] == alone


def test_without_a_number_the_shares_decide(sources: list[Source]) -> None:
    """It ends at the turn of a source that has no more."""
    mixed = mix(sources)
    law, prose = mixed.shares
    assert (law.exhausted, law.drawn, prose.exhausted, prose.drawn) == (True, 100, False, 34)
    assert abs(law.reached - 0.75) < 0.01
    turned = mix([Source("law", sources[0].files, 1), Source("prose", sources[1].files, 1)])
    assert [(share.drawn, share.reached) for share in turned.shares] == [(41, 41 / 81), (40, 40 / 81)]


def test_an_exhausted_source_leaves_the_rest_to_others(sources: list[Source]) -> None:
    """The table says which, and what that makes of the shares; all being exhausted ends it."""
    mixed = mix(sources, records=130)
    assert [(share.drawn, share.exhausted) for share in mixed.shares] == [(97, False), (33, False)]
    mixed = mix(sources, records=138)
    assert [(share.drawn, share.exhausted) for share in mixed.shares] == [(100, True), (38, False)]
    assert len(mix(sources, records=1000).drawn) == 140


def test_with_repetition_a_source_begins_anew(sources: list[Source]) -> None:
    """After all of its records, in another order."""
    mixed = mix(sources, records=400, repeat=True)
    law = [text for text in texts(mixed) if text[0] == "l"]
    assert len(law) == 300
    assert set(law[:100]) == set(law[100:200])
    assert law[:100] != law[100:200]
    assert mixed.shares[0].exhausted


def test_fields_are_kept(tmp_path: Path) -> None:
    """Whatever the record is."""
    source = write(tmp_path / "a.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b", "from": "x"}])
    mix([Source("a", [source])]).write(tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl") == read(source)


def test_numbers_that_say_nothing_are_refused(sources: list[Source], tmp_path: Path) -> None:
    """With what was expected."""
    with pytest.raises(ConfigError, match="give one number, not both"):
        mix(sources, records=1, tokens=1)
    with pytest.raises(ConfigError, match="expected at least 1"):
        mix(sources, records=0)
    with pytest.raises(ConfigError, match="with repetition a mix has no end"):
        mix(sources, repeat=True)
    with pytest.raises(ConfigError, match="the source law has the weight 0, expected a number above 0"):
        mix([Source("law", sources[0].files, 0)])
    with pytest.raises(ConfigError, match="the source law is there twice"):
        mix([sources[0], sources[0]])
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(DataError, match="the source none has no records"):
        mix([Source("none", [tmp_path / "none.json"])])
