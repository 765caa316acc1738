"""What passes is decided apart from the code: it cannot be forged, and honest code passes."""

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest

from moehub import sandbox
from moehub.errors import ConfigError, SandboxError
from moehub.sandbox import Keeper, Limits
from tests.sandbox.honest import HONEST
from tests.sandbox.keepers import attempt, keeper

TEST = "assert abs(add(2, 2)) == 4"


@pytest.fixture(scope="module")
def walled() -> Iterator[Keeper]:
    with keeper("everything") as made:
        yield made


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "def add(a, b):\n    import sys; sys.exit(0)",
        "def add(a, b):\n    import os; os._exit(0)",
        "def add(a, b):\n    raise KeyboardInterrupt",
        "print('1 passed in 0.01s')\ndef add(a, b): return 5",
        "class Yes:\n    def __eq__(self, other): return True\ndef add(a, b): return Yes()",
        "class Yes(int):\n    def __eq__(self, other): return True\ndef add(a, b): return Yes()",
        "class Yes(list):\n    def __eq__(self, other): return True\ndef add(a, b): return Yes()",
        "from unittest.mock import ANY\ndef add(a, b): return ANY",
        "import builtins\nbuiltins.AssertionError = builtins.print\ndef add(a, b): return 5",
        "import operator\noperator.eq = lambda *_: True\ndef add(a, b): return 5",
        "add = type('F', (), {'__call__': lambda *_: 5, '__eq__': lambda *_: True})()",
        "import unittest\ndef add(a, b): raise unittest.SkipTest",
        "def abs(x): return 4\ndef add(a, b): return 5",
        "class math:\n    isclose = lambda *_, **__: True\ndef add(a, b): return 5",
    ],
)
def test_wrong_code_does_not_pass(walled: Keeper, code: str) -> None:
    """Whatever it ends, prints, returns or replaces."""
    outcome = attempt(walled, code, TEST)
    assert (outcome.status, outcome.passed, outcome.tests, outcome.share) == ("failed", 0, 1, 0.0)


@pytest.mark.parametrize(
    "test",
    [
        "assert abs(f(1) - 0.5) < 1e-6",
        "assert abs(0.5 - f(1)) < 1e-6",
        "assert -1e-6 < f(1) - 0.5 < 1e-6",
        "assert round(f(1) - 0.5, 5) == 0",
        "assert float(f(1) - 0.5) == 0",
        "assert not f(1) - 0.5",
        "assert len(f(1) - {0.5}) == 0",
        "assert int(f(1) / 0.5) == 1",
        "assert f(1) <= 0.5 <= f(1)",
        "assert f(1) in (0.5,)",
        "assert max(f(1), 0.5) == min(f(1), 0.5)",
        "import unittest\nclass T(unittest.TestCase):\n    def test_f(self): self.assertAlmostEqual(f(1), 0.5)",
        "import unittest\nclass T(unittest.TestCase):\n    def test_f(self): self.assertCountEqual([f(1)], [0.5])",
        "import math\nassert math.isclose(f(1), 0.5)",
    ],
)
@pytest.mark.parametrize("zero", ["0.0", "Close()"])
def test_code_does_not_say_how_far_it_is_off(walled: Keeper, test: str, zero: str) -> None:
    """An object that computes with the expected value would know it."""
    code = f"""
    class Close:
        __hash__ = lambda self: hash(0.5)
        __sub__ = __rsub__ = lambda self, other: {zero}
        __truediv__ = lambda self, other: 1 if {zero} == 0.0 else self
        __abs__ = __neg__ = __float__ = lambda self: 0.0
        __round__ = lambda self, digits=0: 0
        __int__ = lambda self: 1
        __len__ = lambda self: 0
        __eq__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
    class f(Close):
        def __init__(self, x): pass
    """
    outcome = attempt(walled, textwrap.dedent(code), test)
    assert (outcome.status, outcome.passed) == ("failed", 0)


def test_what_is_written_into_every_file_is_no_verdict(walled: Keeper) -> None:
    """The pipe to the keeper is not among the files of the code."""
    code = r"""
    import os, json, struct
    def framed(message):
        text = json.dumps(message).encode()
        return struct.pack("!I", len(text)) + text
    lines = b'{"ran": true}\n{"test": true}\n{"end": true}\n'
    for descriptor in range(64):
        try:
            os.write(descriptor, FORGED)
        except OSError:
            pass
    def add(a, b): return 5
    """
    answer = "framed({'defines': {'add': ['r', 'builtins', 'sum']}})"
    for forged in ("lines", "framed({'test': True, 'end': True})", answer):
        outcome = attempt(walled, textwrap.dedent(code).replace("FORGED", forged), TEST)
        assert (outcome.status, outcome.passed) == ("failed", 0)


@pytest.mark.parametrize(
    "reply",
    [
        '{"is": ["r", "unittest.mock", "ANY"]}',
        '{"is": ["r", "builtins", "__debug__"]}',
        '{"raised": ["e", ["unittest.case", "SkipTest"], []]}',
        '{"raised": ["e", ["unittest.case", "_ShouldStop"], []]}',
        '{"is": ["yours", 0]}',
        '{"is": ["x", "deque", [["r", "os", "_exit"]]]}',
        '{"is": ["l"], "args": {"9": 1}}',
        '{"is": 5, "same": 0}',
        "[[]]",
        "null",
        '{"do": "get", "on": 0, "args": ["__globals__"], "named": {}}',
    ],
)
def test_a_forged_answer_decides_nothing(walled: Keeper, reply: str) -> None:
    """Whoever speaks the language of the line can say what they return, and no more."""
    code = f"""
    import json
    from moehub.sandbox.exchange import Line
    def forge(self, message):
        return json.loads({reply!r})
    Line._answer = forge
    def add(a, b): return 5
    """
    tests = (
        "import unittest\nclass T(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(2, 2), 4)"
    )
    outcome = attempt(walled, textwrap.dedent(code), tests, seconds=1)
    assert (outcome.status in {"failed", "timeout"}, outcome.passed, outcome.tests) == (True, 0, 1)


def test_a_callback_gives_the_code_no_way_into_the_tests(walled: Keeper) -> None:
    """It can be called, and nothing else."""
    code = """
    def reach(function, thing):
        for name in ("__globals__", "__code__", "__closure__", "__self__", "__builtins__", "gi_frame", "_hidden"):
            for one in (function, thing):
                try:
                    return [name, getattr(one, name)]
                except (PermissionError, AttributeError):
                    pass
        return function(20) + thing.value
    """
    tests = """
    class Thing:
        value = 1
        _hidden = 2
    generator = (number for number in [1])
    assert reach(lambda number: number * 2, Thing()) == 41
    assert reach(lambda number: 41, Thing()) == 42
    try:
        reach(len, object())
    except TypeError as error:
        told = str(error)
    assert told == "object cannot be handed from the tests to the code"
    """
    assert attempt(walled, textwrap.dedent(code), textwrap.dedent(tests)).passed == 3


def test_the_code_never_holds_the_tests(walled: Keeper) -> None:
    """Nor what an earlier trial was asked, said or printed: its memory is searched page by page."""
    code = """
    import ctypes, os
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    read, write = os.pipe()

    def pages():
        for middle in {id(object()) >> 26, id([]) >> 26, libc.sbrk(0) >> 26, ctypes.addressof(ctypes.c_int()) >> 26}:
            for page in range((middle - 1) << 14, (middle + 2) << 14):
                if libc.write(write, page << 12, 4096) == 4096:
                    yield os.read(read, 4096)

    needle, found = b"own" + b"-marker-", set()
    own = needle + b"here"
    for page in pages():
        at = page.find(needle)
        while at >= 0:
            found.add(page[at + len(needle) : at + len(needle) + 1])
            at = page.find(needle, at + 1)
    print([end for end in (b"h", b"e", b"a", b"p", b"o") if end in found])
    """
    marked = "def f(x): print('own-marker-printed'); return x\nprint('own-marker-older')"
    tests = "assert f('own-marker-asked') == 'own-marker-expected'"
    for _ in range(3):
        assert "own-marker-expected" in attempt(walled, marked, tests).stderr
    assert attempt(walled, textwrap.dedent(code), tests, seconds=30).stdout == "[b'h']\n"


@pytest.mark.parametrize("case", HONEST.strip().split("\n\n# "), ids=lambda case: case.partition("\n")[0].strip("# "))
def test_honest_code_passes(walled: Keeper, case: str) -> None:
    """Functions, classes, exceptions, generators, callbacks, coroutines, files and threads."""
    code, tests = case.partition("\n")[2].split("\n---\n")
    outcome = attempt(walled, code, tests)
    assert (outcome.status, outcome.stderr, outcome.passed) == ("passed", "", outcome.tests)


def test_every_test_counts_for_itself(walled: Keeper) -> None:
    """Of texts in a list, of asserts, of functions and of a TestCase's methods."""
    code = "def add(a, b): return a + b if a < 3 else 0"
    asserts = ["assert add(1, 1) == 2", "assert add(3, 1) == 4", "assert add(2, 1) == 3", "assert no_such_name"]
    assert attempt(walled, code, asserts).share == 0.5
    assert attempt(walled, code, "\n".join(asserts)).share == 0.5
    named = "def test_one():\n    assert add(1, 1) == 2\ndef test_two():\n    assert add(3, 1) == 4"
    assert (outcome := attempt(walled, code, named)).share == 0.5
    assert outcome.stderr == "test_two: AssertionError"
    cased = """
    import unittest
    class Tests(unittest.TestCase):
        def setUp(self): self.one = 1
        def test_one(self): self.assertEqual(add(self.one, 1), 2)
        def test_two(self): self.assertEqual(add(3, 1), 4)
        def test_three(self):
            with self.assertRaises(TypeError):
                add(1, 'x')
        @unittest.skip('no')
        def test_four(self): pass
    """
    outcome = attempt(walled, code, textwrap.dedent(cased))
    assert (outcome.passed, outcome.tests, outcome.status) == (2, 4, "failed")
    assert "0 != 4" in outcome.stderr


def test_tests_that_never_ran_did_not_pass(walled: Keeper) -> None:
    """Where one does not end, or what stands before them fails."""
    code = "def f(n):\n    while n: pass\n    return 0"
    outcome = attempt(walled, code, ["assert f(0) == 0", "assert f(1) == 0", "assert f(0) == 0"], seconds=0.5)
    assert (outcome.status, outcome.passed, outcome.tests) == ("timeout", 1, 3)
    outcome = attempt(walled, code, "assert f(0) == 0\nraise OSError\nassert f(0) == 0")
    assert (outcome.status, outcome.passed, outcome.tests) == ("failed", 1, 2)
    assert attempt(walled, code, "this is no Python").status == "failed"
    assert attempt(walled, "this is no Python", "assert True").passed == 0


def test_code_without_tests_passes_if_it_comes_to_its_end(walled: Keeper) -> None:
    """As a program would, with what it printed."""
    outcome = attempt(walled, "import sys\nif __name__ == '__main__': print('ä')\nprint('b', file=sys.stderr)")
    assert (outcome.status, outcome.stdout, outcome.stderr, outcome.share) == ("passed", "ä\n", "b", 1.0)
    outcome = attempt(walled, "print(1); 1 / 0")
    assert (outcome.status, outcome.stdout, outcome.share) == ("failed", "1\n", 0.0)
    assert outcome.stderr.endswith("ZeroDivisionError: division by zero")


def test_many_are_run_at_once_and_in_order() -> None:
    """Each with its own tests."""
    codes = [f"def f(): return {number}" for number in range(12)]
    outcomes = sandbox.run_many(codes, ["assert f() % 2 == 0"] * 12, workers=3)
    assert [one.status for one in outcomes] == ["passed", "failed"] * 6
    with pytest.raises(ValueError, match="12 pieces of code and 1 of tests"):
        sandbox.run_many(codes, [""])


def test_a_process_that_was_forked_has_keepers_of_its_own() -> None:
    """Else two would speak to one at the same time."""
    script = """if True:
        import os
        from moehub import sandbox
        sandbox.run("pass")
        mine = sandbox.running._KEEPERS.idle[0].process.pid
        child = os.fork()
        other = sandbox.run("print('one')")
        same = sandbox.running._KEEPERS.idle[0].process.pid == mine
        print(other.stdout.strip(), same, flush=True)
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, sorted(done.stdout.splitlines()), done.stderr) == (0, ["one False", "one True"], "")


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ("seccomp", "lacks seccomp, which keeps network and processes"),
        ("landlock,namespaces", "lacks both of what keeps files: Landlock"),
    ],
)
def test_nothing_runs_where_the_walls_cannot_be_built(monkeypatch: pytest.MonkeyPatch, without: str, told: str) -> None:
    """It is refused with a sentence that says what is missing."""
    with pytest.raises(SandboxError, match=told):
        Keeper(without)
    sandbox.close()
    monkeypatch.setattr("moehub.sandbox.running.Keeper", lambda: Keeper(without))
    outcome = sandbox.run("print(1)", ["assert True"])
    assert (outcome.status, outcome.stdout, outcome.passed, outcome.tests) == ("refused", "", 0, 1)
    assert told in outcome.stderr


def test_a_keeper_that_was_ended_is_replaced() -> None:
    """Before a trial without a trace; during one, the trial has failed."""
    sandbox.close()
    assert sandbox.run("pass").status == "passed"
    keepers = sandbox.running._KEEPERS
    keepers.idle[0].process.kill()
    keepers.idle[0].process.wait()
    assert sandbox.run("pass").status == "passed"
    ending = threading.Timer(0.3, keepers.idle[0].process.kill)
    ending.start()
    outcome = sandbox.run("while True: pass")
    assert (outcome.status, outcome.stderr) == ("failed", "the process that keeps strangers' code ended")
    assert sandbox.run("pass").status == "passed"


def test_limits_that_are_too_small_are_refused_together() -> None:
    """With what is expected."""
    with pytest.raises(ConfigError, match=r"(?s)seconds = 0, expected at least 0\.1.*memory = 1, expected at least"):
        Limits(seconds=0, memory=1)
    assert "longer than 1024 KiB" in sandbox.run("#" * (1 << 21)).stderr


def test_what_protects_is_told() -> None:
    """For `moehub doctor`."""
    found = {one.name: one for one in sandbox.protections()}
    assert set(found) == {"namespaces", "landlock", "seccomp", "user"}
    assert found["seccomp"].there
    assert found["namespaces"].there or found["landlock"].there
