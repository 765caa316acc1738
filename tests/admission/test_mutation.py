"""The gate itself is tested: whichever check is switched off, the corpus notices."""

from pathlib import Path

import pytest

from moehub.admission.check import without
from moehub.admission.gate import examine
from moehub.admission.registry import registered
from tests import attacks
from tests.world import World

CODES = [check.code for check in registered()]


@pytest.mark.parametrize("code", CODES)
def test_the_corpus_notices_that_a_check_is_off(code: str, world: World, tmp_path: Path) -> None:
    """For each check there is an attack that passes its step, and those before, once the check is off."""
    against = [attack for attack in attacks.registered() if attack.code == code]
    assert against, f"no attack is meant for {code}: write one in tests/attacks"
    step = next(check.step for check in registered() if check.code == code)
    checks = tuple(check for check in registered() if check.step <= step)
    folder, at_hand = against[0].make(tmp_path / "expert", world), against[0].offered(world)
    assert {refusal.code for refusal in examine(folder, at_hand, checks=checks).refusals} == {code}
    assert examine(folder, at_hand, checks=without(checks, code)).admitted


def test_every_code_is_of_one_check() -> None:
    """Codes are stable names: no two checks share one, and steps go up."""
    steps = [check.step for check in registered()]
    assert len(set(CODES)) == len(CODES)
    assert steps == sorted(steps)
