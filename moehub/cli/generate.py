"""`moehub generate`: write text, and show which expert each token went to."""

import sys
from typing import TYPE_CHECKING

import click

from moehub.cli import options
from moehub.console import console

if TYPE_CHECKING:
    from moehub.evaluation import TracedToken


@click.command(name="generate")
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--trace", is_flag=True, help="Colour every token by the expert it went to (MoEs only).")
@click.option("--max-new-tokens", default=128, show_default=True, type=click.IntRange(min=1))
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(min=0), help="0: most probable.")
@click.option("--top-p", default=1.0, show_default=True, type=click.FloatRange(min=0, max=1, min_open=True))
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@click.option("--chat", "as_chat", is_flag=True, help="The prompt is a question: use the base's chat template.")
@click.option("--base", help="Where the base is, if not where the expert or the MoE says.")
@options.backend
@options.resident
def command(
    model: str,
    prompt: str | None,
    trace: bool,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    as_chat: bool,
    base: str | None,
    backend: str,
    resident: int | None,
) -> None:
    """Go on from PROMPT (or standard input) with a base, an expert or a MoE; text appears as it is written.

    \b
    Examples:
      moehub generate moe "def fibonacci(n):" --trace
      echo "The lessee shall" | moehub generate moe --temperature 0.7
    """  # noqa: D301
    from moehub import generation, models
    from moehub.answering.answerer import Sampling

    text = prompt if prompt is not None else "" if sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    opened = models.open_model(model, base=base, backend=backend, resident=resident)
    if trace and opened.kind != "moe":
        raise click.UsageError(f"--trace shows a MoE's routing, and {model} is a {opened.kind}: leave it out")
    ids = generation.encode_prompt(opened, text, as_chat=as_chat)
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    show = _Tracer(opened.model.names) if trace else _plain
    if not trace:
        _write(text)
    generation.generate(opened, ids, sampling, on_token=show, trace=trace)
    _write("\n")
    if isinstance(show, _Tracer):
        show.legend()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _plain(token: "TracedToken") -> None:
    _write(token.text)


class _Tracer:
    """Prints tokens in their expert's colour; without colours, the expert stands in brackets where it changes."""

    def __init__(self, names: list[str]) -> None:
        from rich.console import Console

        from moehub.palette import colours

        self.console = Console(highlight=False, soft_wrap=True)
        self.colours = colours(names)
        self.last = ""

    def __call__(self, token: "TracedToken") -> None:
        """Print one token."""
        expert, text = token.expert, token.text
        if not self.console.is_terminal and expert != self.last:
            _write(f"[{expert}]")
        self.last = expert
        self.console.print(text, style=self.colours.get(expert), end="", markup=False)

    def legend(self) -> None:
        """Say which colour is whose."""
        from rich.text import Text

        line = Text("experts: ")
        for name, colour in self.colours.items():
            line.append(f"{name} ", style=colour)
        console.print(line.append("(null: no colour)"))
