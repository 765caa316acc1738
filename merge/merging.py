"""The verbs: merge experts into a MoE, add one, remove one, make a MoE again from its lock."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moehub import base as bases
from moehub import config, files
from moehub.admission.at_hand import AtHand
from moehub.base import Base
from moehub.card import CARD_FILE, read_card
from moehub.errors import MergeError, listed
from moehub.experts.folder import Expert
from moehub.merge.assemble import EXPERTS_FOLDER, assemble, comparable, reassemble
from moehub.merge.entrance import Entrant, enter, look_again
from moehub.merge.load import find_base, read_moe_config, refuse_foreign
from moehub.merge.lock import LOCK_FILE, Lock, read_lock
from moehub.merge.null import keep_null, make_null
from moehub.merge.plan import BaseModel, Null, Plan, make_plan
from moehub.merge.source import Source
from moehub.merge.tuned import TUNED_KEY
from moehub.router.settings import RouterSettings


@dataclass(frozen=True)
class Recipe:
    """What `moehub merge` makes a MoE of; also the format of `merge.yaml`."""

    base: str = ""
    """A folder, or `org/name[@revision]` on a hub."""
    experts: tuple[str, ...] = ()
    """Folders, or `org/name[@revision]` on a hub."""
    null: str | None = None
    """Generic text, or a folder that holds router statistics: the null expert."""
    router: RouterSettings = field(default_factory=RouterSettings)
    """How the gate is made and acts."""
    embed_base: bool = False
    """Copy the base into the MoE's folder."""
    canary: Path | None = None
    """Public text that no expert may make the base much worse on; None: no forward pass is made."""


def read_recipe(file: Path) -> Recipe:
    """Return the recipe in a YAML file.

    Raises:
        ConfigError: unknown keys or wrong types, all listed.
    """
    values = config.read_yaml(file)
    if isinstance(values.get("router"), dict):
        values["router"] = config.from_mapping(RouterSettings, values["router"], source=f"{file}: router")
    return config.from_mapping(Recipe, values, source=str(file))


@dataclass(frozen=True)
class Prepared:
    """A plan whose experts are on disk, and the base it is for; valid until its workspace is closed."""

    plan: Plan
    base: Base
    recipe: Recipe

    def write(self, output: Path) -> None:
        """Write the MoE to `output`.

        Raises:
            MergeError: the plan has faults, or something else than a MoE stands at `output`.
        """
        refuse_foreign(output)
        assemble(self.plan, self.base, output, embed_base=self.recipe.embed_base)


@dataclass(frozen=True)
class Change:
    """A plan for a MoE that exists: what it will be, and which of its experts are new."""

    plan: Plan
    moe: Path
    fresh: tuple[str, ...]
    embed_base: bool

    def write(self) -> None:
        """Replace the MoE.

        Raises:
            MergeError: the plan has faults.
        """
        reassemble(self.plan, self.moe, fresh=self.fresh, embed_base=self.embed_base)


@contextlib.contextmanager
def prepare(
    recipe: Recipe, *, hub: str | None = None, top_k_was_asked_for: bool = False, locked: Lock | None = None
) -> Iterator[Prepared]:
    """Yield the plan for a recipe, with everything it needs on disk.

    Args:
        recipe: base, experts, null and router.
        hub: a hub's URL or folder; None for the default one.
        top_k_was_asked_for: whether `top_k` beyond the number of experts is a fault rather than a default.
        locked: refuse experts, base or null that are not those of this lock.

    Raises:
        MoehubError: the base or an expert cannot be found or opened.
    """
    with tempfile.TemporaryDirectory(prefix="moehub-merge-") as workspace:
        base = bases.find(recipe.base)
        model = BaseModel(base.pin(), base.location, comparable(base.load_config().to_diff_dict()))
        at_hand = _at_hand(model, recipe.canary, base)
        entrants = enter(recipe.experts, at_hand, hub=hub, workspace=Path(workspace))
        sources, _ = _parted(entrants)
        null = None
        if recipe.null is not None:
            null = make_null(recipe.null, base, like=sources, router=recipe.router, hub=hub)
        sources, refused = _parted(_compared(entrants, at_hand, null, sources))
        plan = make_plan(
            model,
            sources,
            null=null,
            settings=recipe.router,
            refused=refused,
            top_k_was_asked_for=top_k_was_asked_for,
        )
        if locked is not None:
            _compare(plan, locked)
        yield Prepared(plan, base, recipe)


@contextlib.contextmanager
def prepare_again(
    lock_file: Path, *, hub: str | None = None, canary: Path | None = None, untuned: bool = False
) -> Iterator[Prepared]:
    """Yield the plan for the MoE that a `merge.lock` describes; `untuned` is whether it may be without its tuning.

    Raises:
        MergeError: a source is no longer what it was, or the MoE was tuned.
    """
    lock = read_lock(lock_file)
    if lock.tuned is not None and not untuned:
        raise MergeError(
            f"the MoE of {lock_file} was tuned, and what its gate learned stands in its folder alone: copy the folder "
            "to have it again, or make it with its gate from counts with --untuned"
        )
    pinned = f"@{lock.base.revision}" if lock.base.revision else ""
    recipe = Recipe(
        base=f"{lock.location}{pinned}",
        experts=tuple(f"{one.source}@{one.commit}" if one.commit else one.source for one in lock.experts),
        null=None if lock.null is None else lock.null.source,
        router=lock.router,
        embed_base=lock.embed_base,
        canary=canary,
    )
    with prepare(recipe, hub=hub, locked=lock) as prepared:
        yield prepared


@contextlib.contextmanager
def prepare_change(
    moe: Path,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    hub: str | None = None,
    canary: Path | None = None,
    untuned: bool = False,
) -> Iterator[Change]:
    """Yield the plan for a MoE with experts added or removed; only what is added is read and checked.

    Args:
        moe: the MoE's folder.
        add: folders, or `org/name[@revision]` on a hub.
        remove: names of experts that are in it.
        hub: a hub's URL or folder; None for the default one.
        canary: public text that no new expert may make the base much worse on.
        untuned: whether what was tuned is dropped; a MoE that was tuned can be changed in no other way.

    Raises:
        MergeError: it is no MoE, an expert to remove is not in it, or it was tuned and `untuned` does not say that
            this may go.
    """
    moe_config, lock = read_moe_config(moe), read_lock(moe / LOCK_FILE)
    _check_tuning(moe, tuned=TUNED_KEY in moe_config.router, untuned=untuned)
    known = {one.name for one in lock.experts}
    absent = [name for name in remove if name not in known]
    if absent:
        raise MergeError(
            listed(
                f"{moe} cannot be changed:",
                [f"there is no expert {name!r} to remove, expected {', '.join(sorted(known))}" for name in absent],
            )
        )
    kept = [source for source in residents(moe, lock) if source.expert.name not in remove]
    model = BaseModel(lock.base, lock.location, moe_config.base_config)
    with tempfile.TemporaryDirectory(prefix="moehub-merge-") as workspace:
        at_hand = _at_hand(model, canary, find_base(moe_config, moe, None) if canary is not None else None)
        null = keep_null(moe, lock)
        entrants = enter(add, at_hand, hub=hub, workspace=Path(workspace))
        added, _ = _parted(entrants)
        added, refused = _parted(_compared(entrants, at_hand, null, [*added, *kept]))
        plan = make_plan(model, added, known=kept, null=null, settings=lock.router, refused=refused)
        yield Change(plan, moe, tuple(source.expert.name for source in added), lock.embed_base)


def _check_tuning(moe: Path, *, tuned: bool, untuned: bool) -> None:
    if tuned and not untuned:
        raise MergeError(
            f"{moe} was tuned: what its gate learned holds for exactly these experts, so none can be added or taken "
            "out. With --untuned the tuning is dropped, and the gate is made of counts alone again; tune it afterwards"
        )
    if untuned and not tuned:
        raise MergeError(f"{moe} was not tuned, so there is nothing to drop: leave --untuned out")


def _at_hand(model: BaseModel, canary: Path | None, base: Base | None) -> AtHand:
    """Return what the gate has at hand; the base's weights only where a text is to be read with them."""
    if canary is not None and not canary.is_file():
        raise MergeError(f"--canary {canary} is no file: give public text that experts must not make the base worse on")
    return AtHand(pin=model.pin, base_config=model.config, base=base if canary is not None else None, canary=canary)


def _compared(
    entrants: Sequence[Entrant], at_hand: AtHand, null: Null | None, company: Sequence[Source]
) -> list[Entrant]:
    """Return the entrants after the gate's second look, beside the null and those who are or come in."""
    at_hand = dataclasses.replace(at_hand, null=None if null is None else null.statistics)
    return [look_again(entrant, at_hand, company) for entrant in entrants]


def _parted(entrants: Sequence[Entrant]) -> tuple[list[Source], list[Entrant]]:
    """Return the experts that the gate admitted, and those at the entrance that it refused."""
    admitted = [entrant.source for entrant in entrants if entrant.source is not None]
    return admitted, [entrant for entrant in entrants if entrant.source is None]


def residents(moe: Path, lock: Lock) -> list[Source]:
    """Return the experts of a MoE without checking their files again: only their cards are read."""
    folders = {one.name: moe / EXPERTS_FOLDER / one.name for one in lock.experts}
    return [
        Source(one.source, one.commit, Expert(folders[one.name], read_card(folders[one.name]))) for one in lock.experts
    ]


def _compare(plan: Plan, lock: Lock) -> None:
    cards = {one.name: one.card for one in lock.experts}
    faults = [
        f"the expert {source.expert.name!r} from {source.reference} is not the one that was locked"
        for source in plan.sources
        if files.sha256(source.expert.folder / CARD_FILE) != cards.get(source.expert.name)
    ]
    if (plan.base.pin.digest, plan.base.pin.tokenizer) != (lock.base.digest, lock.base.tokenizer):
        faults.append(f"the base {lock.location} is not the one that was locked")
    if lock.null is not None and plan.null is not None and plan.null.sha256 != lock.null.sha256:
        faults.append(f"the null expert's {lock.null.source} is not the one that was locked")
    if faults:
        raise MergeError(listed("what was locked is no longer there; merge anew, or bring it back:", faults))
