"""Arithmetic in words and signs: equations, problems and solutions, made from a seed; every result is true."""

import random
from collections.abc import Callable, Iterator
from fractions import Fraction

_NAMES = ("Ada", "Amir", "Chen", "Clara", "Dmitri", "Elif", "Farah", "Goran", "Hana", "Ines", "Jamal", "Kenji", "Lena")
_THINGS = ("apples", "pencils", "marbles", "stamps", "coins", "cards", "bricks", "tiles", "candles", "eggs", "books")
_PLACES = ("shop", "school", "farm", "bakery", "library", "market", "workshop", "garden")


def documents(seed: int) -> Iterator[str]:
    """Yield sheets of a dozen exercises without end; the same seed gives the same sheets."""
    draw = random.Random(f"arithmetic {seed}")  # noqa: S311 (exercises, not secrets)
    while True:
        yield "".join(draw.choice(_EXERCISES)(draw) + "\n" for _ in range(12))


def _addition(draw: random.Random) -> str:
    digits = draw.randint(1, 4)
    a, b = (draw.randint(0, 10**digits) for _ in range(2))
    return draw.choice((f"{a} + {b} = {a + b}", f"{a + b} - {b} = {a}"))


def _product(draw: random.Random) -> str:
    a, b = draw.randint(2, 12), draw.randint(2, 99)
    return draw.choice((f"{a} * {b} = {a * b}", f"{a * b} / {a} = {b}", f"{b} * {a} = {a * b}"))


def _chain(draw: random.Random) -> str:
    a, b, c = (draw.randint(1, 60) for _ in range(3))
    return f"({a} + {b}) * {c} = {a + b} * {c} = {(a + b) * c}"


def _remainder(draw: random.Random) -> str:
    divisor, quotient = draw.randint(3, 19), draw.randint(2, 40)
    rest = draw.randrange(divisor)
    total = divisor * quotient + rest
    check = f"{divisor} * {quotient} + {rest} = {total}"
    return f"{total} divided by {divisor} is {quotient} with remainder {rest}: {check}"


def _fractions(draw: random.Random) -> str:
    a, b = (Fraction(draw.randint(1, 9), draw.randint(2, 12)) for _ in range(2))
    return f"{a} + {b} = {a + b}"


def _percentage(draw: random.Random) -> str:
    share, whole = draw.choice((5, 10, 20, 25, 50, 75)), draw.randint(1, 40) * 20
    return f"{share}% of {whole} is {share} / 100 * {whole} = {share * whole // 100}"


def _equation(draw: random.Random) -> str:
    a, x, b = draw.randint(2, 12), draw.randint(1, 30), draw.randint(1, 50)
    return f"Solve {a}x + {b} = {a * x + b}: {a}x = {a * x + b} - {b} = {a * x}, so x = {a * x} / {a} = {x}."


def _gift(draw: random.Random) -> str:
    giver, taker = draw.sample(_NAMES, 2)
    thing, had, gave = draw.choice(_THINGS), draw.randint(10, 90), draw.randint(1, 9)
    return (
        f"Question: {giver} has {had} {thing} and gives {gave} to {taker}. How many {thing} are left?\n"
        f"Answer: {had} - {gave} = {had - gave}. {giver} has {had - gave} {thing} left."
    )


def _boxes(draw: random.Random) -> str:
    place, thing = draw.choice(_PLACES), draw.choice(_THINGS)
    boxes, each, loose = draw.randint(2, 12), draw.randint(3, 24), draw.randint(1, 9)
    total = boxes * each + loose
    return (
        f"Question: The {place} has {boxes} boxes of {each} {thing} and {loose} loose ones. How many {thing} is that?\n"
        f"Answer: {boxes} * {each} = {boxes * each}, and {boxes * each} + {loose} = {total}. The {place} has {total}."
    )


def _price(draw: random.Random) -> str:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    count, price = draw.randint(2, 12), draw.randint(2, 15)
    paid = count * price + draw.randint(1, 40)
    return (
        f"Question: {name} buys {count} {thing} at {price} dollars each and pays with {paid} dollars. "
        f"How much change does {name} get?\n"
        f"Answer: {count} * {price} = {count * price}, and {paid} - {count * price} = {paid - count * price}. "
        f"{name} gets {paid - count * price} dollars."
    )


def _sharing(draw: random.Random) -> str:
    friends, each, thing = draw.randint(3, 12), draw.randint(2, 60), draw.choice(_THINGS)
    return (
        f"Question: {friends} friends share {friends * each} {thing} equally. How many does each friend get?\n"
        f"Answer: {friends * each} / {friends} = {each}. Each friend gets {each} {thing}."
    )


def _journey(draw: random.Random) -> str:
    vehicle, hours, speed = draw.choice(("train", "boat", "car", "bus")), draw.randint(2, 9), draw.randint(20, 120)
    return (
        f"Question: A {vehicle} travels {hours} hours at {speed} kilometres an hour. How far does it go?\n"
        f"Answer: {hours} * {speed} = {hours * speed}. It goes {hours * speed} kilometres."
    )


_EXERCISES: tuple[Callable[[random.Random], str], ...] = (
    _addition,
    _product,
    _chain,
    _remainder,
    _fractions,
    _percentage,
    _equation,
    _gift,
    _boxes,
    _price,
    _sharing,
    _journey,
)
