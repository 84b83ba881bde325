"""Line and branch coverage of a solution by its tests: marks in its own syntax tree. Pure.

A statement that stores into a byte array stands before each statement of the solution's
functions and on each side of a branch; at its end the program says which bytes were set. That
costs a run nothing to speak of, where a tracer slows it down several times and would have to be
let into the sandbox. A hostile program can spoil its own figures, and nothing else: they decide
no verdict.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from selfalign_ray.ids import content_id
from selfalign_ray.sandbox.suite import main_guard
from selfalign_ray.validation.definitions import FUNCTIONS, Function, define_lambdas, parse

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_Marks = frozenset[int]  # set if any of them was reached
Place = tuple[int, int]  # line and column where a statement begins


@dataclass(frozen=True)
class Coverage:
    """What the tests of a solution reach."""

    lines: float  # share of the statements in functions that ran; 1 where there are none
    branches: float  # share of the sides of if, for, while, try and match taken; likewise
    reached: frozenset[Place]  # the statements that ran, and the functions that were entered
    entered: bool  # any function, or there is none


@dataclass(frozen=True)
class Instrumented:
    """A solution that says at its end which of its marks were reached."""

    code: str
    report: str  # a statement to stand below the tests; a definition, so it is no test
    name: str
    marks: int
    statements: dict[Place, _Marks]
    functions: dict[Place, _Marks]
    branches: tuple[_Marks, ...]

    def read(self, stderr: str) -> Coverage | None:
        """The coverage, from what the program said; None where it said nothing fit."""
        lines = [line for line in stderr.split("\n") if line.startswith(f"{self.name} ")]
        try:
            marks = bytes.fromhex(lines[-1].partition(" ")[2]) if lines else b""
        except ValueError:
            return None
        if not lines or len(marks) != self.marks:
            return None
        reached = {index for index, mark in enumerate(marks) if mark}
        places = {**self.statements, **self.functions}
        return Coverage(
            lines=_share([not reached.isdisjoint(m) for m in self.statements.values()]),
            branches=_share([not reached.isdisjoint(m) for m in self.branches]),
            reached=frozenset(p for p, m in places.items() if not reached.isdisjoint(m)),
            entered=not reached.isdisjoint(frozenset().union(*self.functions.values()))
            or not self.functions,
        )


def instrument(code: str) -> Instrumented | None:
    """The solution with marks; None where its syntax cannot be read or written.

    A lambda with a name is a function. A solution without one has marks at its top level instead.
    What stands under a main guard does not run with tests, and is left out.
    """
    tree = parse(code)
    if tree is None:
        return None
    name = f"marks_{content_id(code)[:8]}"
    try:
        main_guard(tree)
        define_lambdas(tree)
        marker = _Marker(name)
        marker.mark_functions(tree.body)
        if not marker.functions:
            tree.body, _ = marker.block(tree.body, docstring=True)
        header = ast.parse(f"{name} = bytearray({marker.count})").body
        tree.body[(place := _after_imports_of_future(tree.body)) : place] = header
        text = ast.unparse(tree)
        compile(text, "<code>", "exec", dont_inherit=True)
    except (RecursionError, ValueError, SyntaxError, MemoryError):
        return None
    # Written past sys.stderr, which a program may have put something else in place of.
    report = (
        f"\n{name}_told = __import__('atexit').register(lambda: __import__('os').write("
        f"2, ('\\n{name} ' + {name}.hex() + '\\n').encode()))\n"
    )
    return Instrumented(
        code=text,
        report=report,
        name=name,
        marks=marker.count,
        statements=marker.statements,
        functions=marker.functions,
        branches=tuple(marker.branches),
    )


@dataclass
class _Attempt:
    """A try statement whose body is being marked."""

    loops: int  # around it, in its function
    completed: set[int] = field(default_factory=set)  # marks where its body ends without an error


class _Marker:
    """Puts marks into the statements that it is given, in place."""

    def __init__(self, name: str) -> None:
        self.count = 0
        self.statements: dict[Place, _Marks] = {}
        self.functions: dict[Place, _Marks] = {}
        self.branches: list[_Marks] = []
        self._name = name
        self._tries: list[_Attempt] = []
        self._loops = 0

    def mark_functions(self, body: list[ast.stmt]) -> None:
        """Marks the functions in these statements, at whatever depth, and nothing else."""
        waiting: list[ast.AST] = [*body]
        while waiting:
            node = waiting.pop()
            if isinstance(node, FUNCTIONS):
                self._function(node)
            elif not isinstance(node, ast.expr):
                waiting += ast.iter_child_nodes(node)

    def block(
        self, body: list[ast.stmt], *, docstring: bool = False
    ) -> tuple[list[ast.stmt], _Marks]:
        """The statements, each behind its mark, and the mark of the first."""
        out: list[ast.stmt] = []
        entered: int | None = None
        for number, statement in enumerate(body):
            if (docstring and not number and _is_text(statement)) or _is_declaration(statement):
                out.append(statement)
                continue
            mark = self._mark(out)
            entered = mark if entered is None else entered
            self.statements[place_of(statement)] = frozenset([mark])
            out += self._statement(statement, mark)
        return out, frozenset([self._mark(out) if entered is None else entered])

    def _mark(self, out: list[ast.stmt]) -> int:
        target = ast.Subscript(ast.Name(self._name), ast.Constant(self.count), ast.Store())
        out.append(ast.Assign([target], ast.Constant(1), lineno=0))
        self.count += 1
        return self.count - 1

    def _function(self, node: Function) -> None:
        outer = self._tries, self._loops
        self._tries, self._loops = [], 0
        node.body, entered = self.block(node.body, docstring=True)
        self.functions[place_of(node)] = entered
        self._tries, self._loops = outer

    def _statement(self, node: ast.stmt, mark: int) -> list[ast.stmt]:
        """The statement with marks inside; a `return` in a `try` as three."""
        if isinstance(node, ast.Return) and self._tries:
            return self._return(node, mark)
        if isinstance(node, ast.Break | ast.Continue):
            for attempt in self._tries:
                if attempt.loops == self._loops:
                    attempt.completed.add(mark)
        elif isinstance(node, FUNCTIONS):
            self._function(node)
        elif isinstance(node, ast.ClassDef):
            self.mark_functions(node.body)
        elif isinstance(node, ast.With | ast.AsyncWith):
            node.body, _ = self.block(node.body)
        else:
            self._branching(node)
        return [node]

    def _branching(self, node: ast.stmt) -> None:
        if isinstance(node, ast.If):
            self._if(node)
        elif isinstance(node, _LOOPS):
            self._loop(node)
        elif isinstance(node, ast.Try | ast.TryStar):
            self._try(node)
        elif isinstance(node, ast.Match):
            self._match(node)

    def _return(self, node: ast.Return, mark: int) -> list[ast.stmt]:
        """Tells a value that was computed from one that raised."""
        out: list[ast.stmt] = []
        if node.value is not None:
            kept = f"{self._name}_value"
            out.append(ast.Assign([ast.Name(kept, ast.Store())], node.value, lineno=0))
            mark = self._mark(out)
            node.value = ast.Name(kept, ast.Load())
        for attempt in self._tries:
            attempt.completed.add(mark)
        return [*out, node]

    def _if(self, node: ast.If) -> _Marks:
        """Marks both sides; the marks that say that it was reached."""
        node.body, yes = self.block(node.body)
        match node.orelse:
            case [ast.If() as inner]:  # as `elif`: no mark fits between, and none is needed
                no = self._if(inner)
                self.statements[place_of(inner)] = no
            case _:
                node.orelse, no = self.block(node.orelse)
        self.branches += [yes, no]
        return yes | no

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        """Sides: the body, and an end by itself, which an endless loop has not."""
        self._loops += 1
        node.body, entered = self.block(node.body)
        self._loops -= 1
        if isinstance(node, ast.While) and isinstance(node.test, ast.Constant):
            return
        node.orelse, ended = self.block(node.orelse)
        self.branches += [entered, ended]

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        """Sides: the body to its end, and each handler."""
        if node.handlers:
            self._tries.append(_Attempt(self._loops))
        node.body, _ = self.block(node.body)
        if node.handlers:
            attempt = self._tries.pop()
            node.orelse, completed = self.block(node.orelse)
            self.branches.append(completed | attempt.completed)
        for handler in node.handlers:
            handler.body, caught = self.block(handler.body)
            self.branches.append(caught)
        if node.finalbody:
            node.finalbody, _ = self.block(node.finalbody)

    def _match(self, node: ast.Match) -> None:
        for case in node.cases:
            case.body, entered = self.block(case.body)
            self.branches.append(entered)
        last = node.cases[-1]
        if last.guard or not (isinstance(last.pattern, ast.MatchAs) and not last.pattern.pattern):
            body, fell_through = self.block([])
            node.cases.append(ast.match_case(ast.MatchAs(), None, body))
            self.branches.append(fell_through)


def place_of(node: ast.stmt) -> Place:
    """Where it begins: no two statements begin at the same place."""
    return node.lineno, node.col_offset


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_declaration(node: ast.stmt) -> bool:
    """What has to stand where it stands, and does not run."""
    of_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    return of_future or isinstance(node, ast.Global | ast.Nonlocal)


def _after_imports_of_future(body: list[ast.stmt]) -> int:
    """Where the first statement may stand that is no docstring and no such import."""
    index = int(bool(body) and _is_text(body[0]))
    while index < len(body) and _is_declaration(body[index]):
        index += 1
    return index


def _share(found: list[bool]) -> float:
    return sum(found) / len(found) if found else 1.0
