from pathlib import Path

import pytest

from moehub.admission.at_hand import AtHand
from moehub.admission.check import without
from moehub.admission.gate import examine
from moehub.admission.publisher import signature, version
from moehub.card import read_card
from moehub.errors import SigningError
from moehub.signing.keyring import Keyring
from tests.attacks import Attack
from tests.attacks.publisher import ATTACKS, at_hand
from tests.published import paper_card, paper_expert
from tests.signing.signed import REPO, Publisher, publisher
from tests.world import World

CHECKS = (signature, version)


@pytest.fixture
def acme(tmp_path: Path) -> Publisher:
    return publisher(tmp_path / "keys of acme" / "key")


@pytest.fixture
def keyring(tmp_path: Path, acme: Publisher) -> Keyring:
    """A keyring in which acme's key is pinned."""
    keyring = Keyring(tmp_path / "keyring")
    keyring.pin("acme", acme.public)
    return keyring


def test_what_its_publisher_signed_is_admitted(tmp_path: Path, acme: Publisher, keyring: Keyring) -> None:
    """At the version that was seen, or at a newer one."""
    folder = acme.sign(paper_expert(tmp_path / "law", paper_card(version=3)))
    for least in (1, 3):
        verdict = examine(folder, AtHand(repo=REPO, keyring=keyring, least_version=least), checks=CHECKS)
        assert (verdict.refusals, verdict.skipped) == ((), ())


def test_what_its_publisher_did_not_sign_is_refused_with_the_cure(tmp_path: Path, keyring: Keyring) -> None:
    """One sentence, and whom to ask for what."""
    (refusal,) = examine(
        paper_expert(tmp_path / "law"), AtHand(repo=REPO, keyring=keyring, least_version=1), checks=CHECKS
    ).refusals
    assert (refusal.code, refusal.step) == ("signature", 7)
    assert str(refusal) == (
        "[signature] it is not signed: there is no expert.sig: "
        "pull it again, or ask acme to publish it with `moehub push --sign`"
    )


def test_an_older_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    """And with the way to have it on purpose."""
    (refusal,) = examine(paper_expert(tmp_path / "law"), AtHand(least_version=2), checks=CHECKS).refusals
    assert (refusal.code, refusal.step) == ("version", 7)
    assert refusal.sentence == "it is version 1, but version 2 was seen before"
    assert "org/name@COMMIT" in refusal.cure


def test_what_is_not_at_hand_is_said(tmp_path: Path, keyring: Keyring) -> None:
    """Never assumed: a folder has no publisher, and not every publisher's key is pinned."""
    folder = paper_expert(tmp_path / "law")
    nothing = examine(folder, checks=CHECKS)
    assert [(one.code, one.reason) for one in nothing.skipped] == [
        ("signature", "it comes from no repo, so nobody knows who should have signed it: name it as org/name"),
        ("version", "no other version of it was seen here: what is pulled from a hub is remembered"),
    ]
    for known in (AtHand(repo="other/law", keyring=keyring), AtHand(repo="other/law")):
        (reason,) = (one.reason for one in examine(folder, known, checks=(signature,)).skipped)
        assert reason.endswith("ask other for the public key, and run `moehub keys trust other FILE`")


def test_a_damaged_pin_admits_nothing(tmp_path: Path, acme: Publisher, keyring: Keyring) -> None:
    """It is not taken for no pin."""
    folder = acme.sign(paper_expert(tmp_path / "law"))
    (keyring.folder / "trusted" / "acme.json").write_text("{}")
    with pytest.raises(SigningError, match=r"acme\.json"):
        examine(folder, AtHand(repo=REPO, keyring=keyring), checks=CHECKS)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_every_attack_is_refused_by_the_check_that_is_named(attack: Attack, tmp_path: Path, world: World) -> None:
    """And by no other of this step: with that check switched off it would be admitted."""
    folder = attack.make(tmp_path / "law", world)
    assert read_card(folder).name == "law"
    verdict = examine(folder, at_hand(world), checks=CHECKS)
    assert {refusal.code for refusal in verdict.refusals} == {attack.code}
    assert examine(folder, at_hand(world), checks=without(CHECKS, attack.code)).admitted
