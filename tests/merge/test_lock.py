import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moehub.card import BasePin
from moehub.errors import MergeError
from moehub.merge.lock import Lock, LockedExpert, LockedNull, read_lock
from moehub.router.settings import RouterSettings
from tests.router.test_settings import ANY_SETTINGS

WORDS = st.text(min_size=1, max_size=12)
LOCKS = st.builds(
    Lock,
    base=st.builds(
        BasePin, reference=WORDS, revision=st.none() | WORDS, digest=st.just("0" * 64), tokenizer=st.just("1" * 64)
    ),
    location=WORDS,
    embed_base=st.booleans(),
    router=ANY_SETTINGS,
    experts=st.lists(
        st.builds(LockedExpert, name=WORDS, source=WORDS, commit=st.none() | WORDS, card=WORDS), max_size=3
    ).map(tuple),
    null=st.none() | st.builds(LockedNull, source=WORDS, sha256=WORDS),
    format=st.just(1),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lock=LOCKS)
def test_a_lock_is_written_and_read_back(tmp_path: Path, lock: Lock) -> None:
    """Whatever was locked comes back equal, and is written as the same bytes again."""
    path = tmp_path / "merge.lock"
    path.write_text(lock.to_json(), encoding="utf-8")
    assert read_lock(path) == lock
    assert read_lock(path).to_json() == lock.to_json()


GOOD = Lock(
    BasePin(reference="base", revision=None, digest="0" * 64, tokenizer="1" * 64),
    "/base",
    embed_base=False,
    router=RouterSettings(),
    experts=(LockedExpert("law", "/law", None, "2" * 64),),
)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"router": {"kapa": 1.0}}, "unknown key 'kapa'"),
        ({"router": {"rho": 7.0}}, "rho = 7.0, expected between 0 and 1"),
        ({"base": "somewhere"}, "base = 'somewhere'"),
        ({"experts": [{"name": "law"}]}, "missing key 'source'"),
        ({"experts": 3}, "merge.lock"),
        ({"embed_base": "yes"}, "embed_base = 'yes'"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"format": "1"}, "format '1', expected 1"),
    ],
)
def test_a_lock_that_was_edited_badly_is_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    """Every part is read strictly, and the sentence says which one is wrong."""
    path = tmp_path / "merge.lock"
    path.write_text(json.dumps({**json.loads(GOOD.to_json()), **change}), encoding="utf-8")
    with pytest.raises(MergeError) as caught:
        read_lock(path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_what_is_no_lock_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    """An empty, cut off or foreign file is refused with the cure."""
    (tmp_path / "merge.lock").write_bytes(content)
    with pytest.raises(MergeError, match="merge again from the experts"):
        read_lock(tmp_path / "merge.lock")
    with pytest.raises(MergeError, match="merge again from the experts"):
        read_lock(tmp_path / "nowhere.lock")
