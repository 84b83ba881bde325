"""Which asserts of a program's tests could fail at all. By syntax: nothing is executed."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from typing import NamedTuple

from selfalign_ray.validation.definitions import is_stored, last_name

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SCOPES = (*_DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_BINDINGS = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)
_WITHS = (ast.With, ast.AsyncWith)
_TRIES = (ast.Try, ast.TryStar)
_BRANCHES = (*_WITHS, *_TRIES, ast.For, ast.AsyncFor, ast.If, ast.While)
_REFLEXIVE = (ast.Eq, ast.Is, ast.LtE, ast.GtE)


class AssertCounts(NamedTuple):
    """Columns of `schemas.METRICS`."""

    asserts: int
    trivial_asserts: int
    repeated_asserts: int


class _Claim(NamedTuple):
    about: list[ast.AST]  # what decides whether it holds
    holds: bool  # always, by its form


def count_asserts(solution: ast.Module, tests: ast.Module) -> AssertCounts:
    """The asserts of the tests, how many are trivial, and how many of the others are repeated.

    An assert is an `assert` statement, a call of a method `assert...`, or a `with` that expects
    an exception. It is trivial where it names nothing that the solution defines or that its
    code can have reached (the value of a call, an argument that it may change, standard output
    that the tests redirect), or where its form alone makes it true: constants, a display or a
    lambda, an expression compared with itself, a function's mere existence. `assert False` is
    trivial unless it stands in a `try` that names the solution. What the tests define again
    under the solution's name is no longer the solution's.

    An assert is repeated where it names no variable of the tests and an equal one came before.
    """
    again = {node.name for node in tests.body if isinstance(node, _DEFINITIONS)}
    functions = {n.name for n in solution.body if isinstance(n, _DEFINITIONS)} - again
    tree = _Tree(tests)
    bound = {n.id for n in tree.nodes if isinstance(n, ast.Name) and is_stored(n)}
    reached = _reached(tree, _module_names(solution) - again, bound)
    claims = list(_claims(tests, functions))
    telling = [c.about for c in claims if not (c.holds or reached.isdisjoint(tree.names(*c.about)))]
    texts = [
        " ".join(map(ast.dump, about)) for about in telling if bound.isdisjoint(tree.names(*about))
    ]
    return AssertCounts(len(claims), len(claims) - len(telling), len(texts) - len(set(texts)))


def expects(node: ast.AST) -> bool:
    """Whether it is a call that expects an exception or a warning."""
    name = last_name(node.func) if isinstance(node, ast.Call) else ""
    return name in ("raises", "warns") or name.startswith(("assertRaises", "assertWarns"))


class _Tree:
    """The nodes of a program, and the names in and below each."""

    def __init__(self, module: ast.Module) -> None:
        self.nodes: list[ast.AST] = [module]
        below: list[list[ast.AST]] = []
        for node in self.nodes:  # grows: breadth first, so children stand after their parents
            below.append([child for child in ast.iter_child_nodes(node) if child._fields])
            self.nodes += below[-1]
        self._names: dict[ast.AST, frozenset[str]] = {}
        for node, children in zip(reversed(self.nodes), reversed(below), strict=True):
            if isinstance(node, ast.Name):
                self._names[node] = frozenset([node.id])
            else:
                self._names[node] = self.names(*children)

    def names(self, *nodes: ast.AST | None) -> frozenset[str]:
        found = {self._names[node] for node in nodes if node is not None and node._fields}
        return next(iter(found)) if len(found) == 1 else frozenset().union(*found)


def _claims(tests: ast.Module, functions: set[str]) -> Iterator[_Claim]:
    todo: list[tuple[ast.AST, list[ast.AST]]] = [(tests, [])]
    while todo:
        node, tried = todo.pop()
        inner: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, ast.Assert):
            yield _Claim(tried if _never(node.test) else [node.test], _always(node.test, functions))
        elif isinstance(node, _WITHS) and any(expects(i.context_expr) for i in node.items):
            yield _Claim([*node.body], holds=False)
            inner = node.body
        elif isinstance(node, ast.Call) and _is_assert(node):
            yield _Claim(_subjects(node), _call_holds(node, functions))
        if isinstance(node, _TRIES):
            todo += [(child, [*node.body]) for child in (*node.body, *node.orelse)]
            todo += [(child, tried) for child in (*node.handlers, *node.finalbody)]
        else:
            todo += [(child, tried) for child in inner]


def _reached(tree: _Tree, names: set[str], bound: set[str]) -> set[str]:
    """`names`, and the names in the tests whose values come from them or may be changed there."""
    flows = list(_flows(tree, bound))
    reached = set(names)
    size = -1
    while size != len(reached):
        size = len(reached)
        for sources, targets in flows:
            if not reached.isdisjoint(sources):
                reached |= targets
    return reached


def _flows(tree: _Tree, bound: set[str]) -> Iterator[tuple[Set[str], Set[str]]]:
    """Pairs of names: the values of the second may depend on the first."""
    changeable = bound - _fixed(tree)
    parameters = {
        f.name: {a.arg for a in ast.walk(f.args) if isinstance(a, ast.arg)}
        for f in tree.nodes
        if isinstance(f, ast.FunctionDef)
    }
    for node in tree.nodes:
        if isinstance(node, _BINDINGS):
            used = tree.names(node.value)
            targets = _roots(node.targets if isinstance(node, ast.Assign) else [node.target])
            yield used, targets
            for outside in targets - bound:  # as in `sys.stdout = out`: any code may reach it
                yield tree.names(tree.nodes[0]), {outside} | (used & changeable)
        elif isinstance(node, ast.Call):
            used = tree.names(node)
            yield used, used & changeable
            yield used, parameters.get(last_name(node.func), set())
        elif isinstance(node, _DEFINITIONS):
            yield tree.names(*node.body), {node.name}
        elif isinstance(node, ast.comprehension):
            yield tree.names(node.iter), _roots([node.target])
        elif isinstance(node, _BRANCHES):
            yield from _branch_flows(node, tree, changeable)


def _branch_flows(
    node: ast.stmt, tree: _Tree, changeable: set[str]
) -> Iterator[tuple[Set[str], Set[str]]]:
    """What is assigned inside depends on what decides how far the statement runs."""
    inside = tree.names(node) & changeable
    match node:
        case ast.Try(body=body, handlers=handlers) | ast.TryStar(body=body, handlers=handlers):
            yield tree.names(*body), inside | {h.name for h in handlers if h.name}
        case ast.If(test=decides) | ast.While(test=decides):
            yield tree.names(decides), inside
        case ast.For(iter=decides, target=target) | ast.AsyncFor(iter=decides, target=target):
            yield tree.names(decides), inside | _roots([target])
        case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
            given = tree.names(*(item.context_expr for item in items))
            made = _roots(item.optional_vars for item in items)
            yield given | tree.names(*body), made | (given & changeable)


def _fixed(tree: _Tree) -> set[str]:
    """The names that only ever hold one constant."""
    values: dict[str, list[ast.expr]] = {}
    for node in tree.nodes:
        if isinstance(node, ast.Assign) and all(isinstance(t, ast.Name) for t in node.targets):
            for name in _roots(node.targets):
                values.setdefault(name, []).append(node.value)
    uses = Counter(n.id for n in tree.nodes if isinstance(n, ast.Name) and is_stored(n))
    return {
        name
        for name, found in values.items()
        if len(found) == uses[name] == 1 and _is_constant(found[0])
    }


def _is_constant(value: ast.AST) -> bool:
    """A value that nothing can change."""
    if isinstance(value, ast.UnaryOp):
        return _is_constant(value.operand)
    if isinstance(value, ast.Tuple):
        return all(_is_constant(item) for item in value.elts)
    return isinstance(value, ast.Constant)


def _module_names(module: ast.Module) -> set[str]:
    """What a module defines at its top level, imports apart."""
    names: set[str] = set()
    todo: list[ast.AST] = [module]
    while todo:
        for child in ast.iter_child_nodes(todo.pop()):
            if isinstance(child, _DEFINITIONS):
                names.add(child.name)
            elif isinstance(child, ast.Name) and is_stored(child):
                names.add(child.id)
            if not isinstance(child, _SCOPES):
                todo.append(child)
    return names


def _roots(targets: Iterable[ast.AST | None]) -> set[str]:
    """The names that an assignment to these targets binds or changes."""
    names: set[str] = set()
    todo = list(targets)
    while todo:
        target = todo.pop()
        if isinstance(target, ast.Name):
            names.add(target.id)
        elif isinstance(target, ast.Attribute | ast.Subscript | ast.Starred):
            todo.append(target.value)
        elif isinstance(target, ast.Tuple | ast.List):
            todo += target.elts
    return names


def _is_assert(call: ast.Call) -> bool:
    method = isinstance(call.func, ast.Attribute)
    return method and (last_name(call.func).startswith("assert") or expects(call))


def _subjects(call: ast.Call) -> list[ast.AST]:
    """The arguments; where it is no method of unittest.TestCase, what it is called on as well."""
    if last_name(call.func).startswith("assert_"):
        return [call]
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _call_holds(call: ast.Call, functions: set[str]) -> bool:
    if last_name(call.func) == "assertTrue":
        return bool(call.args) and _always(call.args[0], functions)
    return len(call.args) > 1 and _same(call.args[0], call.args[1])


def _same(left: ast.AST, right: ast.AST) -> bool:
    return type(left) is type(right) and ast.dump(left) == ast.dump(right)


def _always(test: ast.expr, functions: set[str]) -> bool:
    """Whether the form of an expression alone makes it true."""
    match test:
        case ast.Constant(value=value):
            return bool(value)
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return any(not isinstance(item, ast.Starred) for item in items)
        case ast.Dict(keys=keys):
            return any(key is not None for key in keys)
        case ast.Lambda() | ast.GeneratorExp():
            return True
        case ast.Name(id=name) | ast.Call(func=ast.Name(id="callable"), args=[ast.Name(id=name)]):
            return name in functions
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _never(operand)
        case ast.BoolOp(op=ast.Or(), values=values):
            return any(_always(value, functions) for value in values)
        case ast.BoolOp(values=values):
            return all(_always(value, functions) for value in values)
        case ast.Compare():
            return _compares_always(test, functions)
    return False


def _compares_always(test: ast.Compare, functions: set[str]) -> bool:
    match test:
        case ast.Compare(ops=[ast.IsNot() | ast.NotEq()], comparators=[ast.Constant(value=None)]):
            return _always(test.left, functions)
        case ast.Compare(
            left=ast.Call(func=ast.Name(id="len")),
            ops=[ast.GtE()],
            comparators=[ast.Constant(value=0)],
        ):
            return True
    sides = zip([test.left, *test.comparators], test.comparators, strict=False)
    return all(isinstance(op, _REFLEXIVE) for op in test.ops) and all(_same(*s) for s in sides)


def _never(test: ast.expr) -> bool:
    """Whether the form of an expression alone makes it false."""
    match test:
        case ast.Constant(value=value):
            return not value
        case ast.Tuple(elts=[]) | ast.List(elts=[]) | ast.Dict(keys=[]):
            return True
        case ast.BoolOp(op=ast.Or(), values=values):
            return all(map(_never, values))
        case ast.BoolOp(values=values):
            return any(map(_never, values))
    return False
