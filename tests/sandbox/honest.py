"""Honest code with its tests: after each `# name` come the code, `---`, and the tests."""

HONEST = """
# a function of a name that Python has
def sum(a, b): return a * b
---
assert sum(2, 3) == 6

# a function
def add(a, b): return a + b
---
assert add(2, 2) == 4

# imported by name
def add(a, b): return a + b
---
from solution import add
assert add('a', 'b') == 'ab'

# imported whole
def add(a, b): return a + b
---
import solution
assert solution.add([1], [2]) == [1, 2]

# a check
add = lambda a, b: a + b
---
def check(candidate):
    assert candidate(2, 3) == 5
check(add)

# sorted in place
def f(x):
    x.sort()
---
a = [3, 1, 2]
f(a)
assert a == [1, 2, 3]

# changed within
def f(x):
    x[0]['k'].append(1)
    return x
---
a = [{'k': []}]
b = a[0]['k']
assert f(a) is a and b == [1]

# replaced within
def f(x):
    x[0] = (3, 4)
---
a = [(1, 2)]
f(a)
assert a == [(3, 4)]

# a generator
def f(n): yield from range(n)
---
assert list(f(3)) == [0, 1, 2]
assert sum(f(4)) == 6

# a callback
def f(g, x): return [g(each) for each in x]
---
assert f(lambda x: x * 2, [1, 2]) == [2, 4]

# an exception
def f(x): raise ValueError('bad', 3)
---
try:
    f(1)
except ValueError as e:
    a = e.args
assert a == ('bad', 3)

# its own exception
class Full(Exception): pass
def f(): raise Full('x')
---
try:
    f()
except Full as e:
    t = str(e)
assert t == 'x'

# a container
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def __len__(self): return len(self.items)
    def __contains__(self, x): return x in self.items
---
s = Stack()
s.push(4)
assert len(s) == 1
assert 4 in s
assert 5 not in s
assert s.items == [4]
assert isinstance(s, Stack)

# a dataclass
from dataclasses import dataclass
@dataclass(frozen=True, order=True)
class P:
    x: int
    y: int = 0
    def __add__(self, o): return P(self.x + o.x, self.y + o.y)
---
assert P(1) + P(2) == P(3)
assert P(1) != P(2)
assert P(1) < P(2)
assert repr(P(1)) == 'P(x=1, y=0)'
assert len({P(1), P(1)}) == 1

# an enum
from enum import Enum
class C(Enum):
    R = 1
def f(): return C.R
---
assert f() == C.R
assert f().value == 1

# tuples and counters
from collections import Counter, namedtuple
N = namedtuple('N', 'a b')
def f(): return N(1, 2)
def g(): return Counter('aab')
---
assert f() == (1, 2)
assert f().b == 2
assert g() == {'a': 2, 'b': 1}
assert g()['z'] == 0

# values
from fractions import Fraction
from decimal import Decimal
import datetime

def f():
    exact = [Fraction(1, 3), Decimal('1.5'), datetime.date(2020, 1, 2), 10**50]
    return [*exact, 1 + 2j, b'x', {1}, frozenset([2]), float('inf'), range(3)]
---
import datetime
from fractions import Fraction
from decimal import Decimal
exact = [Fraction(1, 3), Decimal('1.5'), datetime.date(2020, 1, 2), 10**50]
assert f() == [*exact, 1 + 2j, b'x', {1}, frozenset([2]), float('inf'), range(3)]

# a coroutine
async def f(x):
    import asyncio
    await asyncio.sleep(0)
    return x
---
import asyncio
assert asyncio.run(f(3)) == 3

# its library
import math
def area(r): return math.pi * r * r
---
assert math.isclose(area(1), math.pi)

# a file
import tempfile
def f():
    with tempfile.TemporaryFile('w+') as file:
        file.write('x')
        file.seek(0)
        return file.read()
---
assert f() == 'x'

# a thread
import threading
def f():
    out = []
    t = threading.Thread(target=out.append, args=(1,))
    t.start()
    t.join()
    return out
---
assert f() == [1]

# a context
from contextlib import contextmanager
@contextmanager
def c():
    yield 5
---
with c() as value:
    assert value == 5

# links
class Node:
    def __init__(self, v, n=None): self.v, self.n = v, n
---
a = Node(1, Node(2))
assert a.n.v == 2
a.n = None
assert a.n is None

# objects of the tests
def total(node):
    return 0 if node is None else node.v + total(node.n)
---
class Node:
    def __init__(self, v, n=None): self.v, self.n = v, n
assert total(Node(1, Node(2))) == 3

# arithmetic of its own
class V:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __mul__(self, k):
        return V(self.x * k, self.y * k)
    __rmul__ = __mul__
    def __eq__(self, o):
        return (self.x, self.y) == (o.x, o.y)
    def __abs__(self):
        return (self.x**2 + self.y**2) ** 0.5
    def __sub__(self, o):
        return self.x - o.x
---
assert V(1, 2) * 2 == V(2, 4)
assert 2 * V(1, 2) == V(2, 4)
assert (V(1, 2) * 3).y == 6
assert abs(V(3, 4)) == 5.0
assert V(5, 0) - V(3, 0) == 2
"""
