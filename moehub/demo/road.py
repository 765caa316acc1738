"""The whole road: base → experts → push → pull → merge → evaluate → add one → take it out again → report."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from moehub import files
from moehub.demo import corpora, machine, report, steps
from moehub.demo.config import DemoConfig
from moehub.demo.corpora import GENERIC, SWITCHING
from moehub.demo.hub import running_hub
from moehub.demo.measure import bench
from moehub.demo.place import Place, make_place
from moehub.demo.report import Report
from moehub.demo.steps import Clock
from moehub.evaluation import TracedToken


@dataclass(frozen=True)
class Demonstration:
    """Everything there is to show."""

    place: Place
    report: Report
    passage: list[TracedToken]
    """Text that switches domains, each token with the expert that it went to."""


def walk(
    output: Path, config: DemoConfig | None = None, *, base: str | None = None, federated: bool = False
) -> Demonstration:
    """Walk the whole road, leave everything in the folder `output`, and return what came out.

    Args:
        output: emptied first if an earlier demo stands there.
        config: sizes, settings and seed.
        base: a base to use in place of the small one: a folder, or `org/name` on a hub.
        federated: let several nodes train each expert together, through Flower.

    Raises:
        MoehubError: `output` holds something else, or a step of the road failed.
    """
    config = config or DemoConfig()
    place, clock = make_place(output), Clock()

    with clock.step("text", "Text: what Python and its packages brought to this machine"):
        text = corpora.gather(config.sizes, seed=config.seed)
        files.write_text(place.generic, "\n\n".join(text.generic.train))
        founders = [corpus.name for corpus in text.founders]
        newcomer, everyone = text.newcomer.name, [corpus.name for corpus in text.contributors]

    with clock.step("base", "Base: one for everyone"):
        found = steps.provide_base(place, text, config, base)

    with tempfile.TemporaryDirectory() as elsewhere:
        trained, given = Path(elsewhere), base is not None
        if federated:
            headline = f"Experts: {config.share.nodes} nodes of each domain train together, through Flower"
            with clock.step("federate", headline):
                trained = steps.federate(found, text.contributors, place.federation, trained, config, given=given)
        for corpus in () if federated else text.contributors:
            with clock.step(f"train {corpus.name}", f"Expert: {corpus.name} trains on text of its own"):
                steps.train(found, corpus, trained / corpus.name, config, given=given)
        with running_hub(place.hub) as hub:
            with clock.step("push", "Push: the experts are published, the text is not"):
                steps.push(hub, trained, everyone)
            with clock.step("pull", "Pull: every file is checked"):
                steps.pull(hub, place, everyone)

    with clock.step("merge", f"Merge: {len(founders)} experts become one model"):
        steps.merge(found, place, founders, config)

    with clock.step("evaluate", "Evaluate: text that nothing was trained or tuned on"):
        texts = {corpus.name: corpus.test for corpus in (*text.contributors, text.generic)}
        desk = bench(found, {**texts, SWITCHING: text.switching})
        scores = desk.scores({"base": found.folder, **{name: place.expert(name) for name in everyone}})
        scores["moe"] = desk.only([*founders, GENERIC, SWITCHING]).scores({"moe": place.moe})["moe"]
        passage = desk.trace(place.moe, text.glance)

    before = files.tree_digest(place.moe)
    with clock.step("add", f"Add: {newcomer} joins"):
        steps.add(place, newcomer)
    with clock.step("evaluate newcomer", f"Evaluate: {newcomer} in the model of {len(everyone)}"):
        scores["moe"] |= desk.only([newcomer]).scores({"moe": place.moe})["moe"]
    with clock.step("remove", f"Remove: {newcomer} leaves"):
        steps.remove(place, newcomer)

    out = report.summarise(
        scores,
        domains=everyone,
        seconds=clock.seconds,
        hash_restored=files.tree_digest(place.moe) == before,
        versions=machine.versions(),
        hardware=machine.hardware(),
    )
    report.write(out, passage, html=place.html, json=place.json)
    return Demonstration(place, out, passage)
