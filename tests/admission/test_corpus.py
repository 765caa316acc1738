from pathlib import Path

import pytest

from moehub.admission.gate import examine
from tests import attacks
from tests.attacks import Attack
from tests.world import World


@pytest.mark.parametrize("attack", attacks.registered(), ids=lambda attack: attack.name)
def test_each_attack_is_refused_by_the_check_that_is_meant_for_it(attack: Attack, world: World, tmp_path: Path) -> None:
    """Every bad expert of the corpus is refused with its code and no other, in lines that a terminal may show."""
    verdict = examine(attack.make(tmp_path / "expert", world), attack.offered(world))
    assert {refusal.code for refusal in verdict.refusals} == {attack.code}
    for refusal in verdict.refusals:
        assert str(refusal).isprintable()
        assert len(str(refusal)) < 1000
        assert (bool(refusal.sentence), bool(refusal.cure)) == (True, True)


def test_the_attacks_names_tell_them_apart() -> None:
    """No two attacks of the corpus have one name."""
    names = [attack.name for attack in attacks.registered()]
    assert sorted(names) == sorted(set(names))
