"""A filter as people write it, to a tree. It knows nothing of columns or of SQL; errors point at a character.

    filter  = term ("or" term)*
    term    = factor ("and" factor)*
    factor  = "not" factor | "(" filter ")" | test
    test    = name ("=" | "!=" | "<>" | "<" | "<=" | ">" | ">=") literal
            | name ["not"] "in" "(" literal ("," literal)* ")"
            | name ["not"] "between" literal "and" literal
            | name ["not"] ("like" | "ilike") string
            | name "is" ["not"] "null"
    literal = number | string           number: -1, 2.5, 1e3       string: 'in quotes, '' for a quote'
    name    = keyword path | private element | anything in double quotes ("" for one of them)

Words of the language are taken in either case, names as they stand. `and` binds tighter than `or`, `not` tightest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal as OneOf

from pipeline.errors import UsageError

LONGEST, DEEPEST, MOST_LITERALS = 20_000, 50, 1_000

_SEGMENT = r"(?:[A-Za-z][A-Za-z0-9_]*|\([0-9A-Fa-f]{4},[^()'\",]*,[0-9A-Fa-f]{2}\))"
_TOKEN = re.compile(rf"""
    (?P<name>{_SEGMENT}(?:\.(?:{_SEGMENT}|[0-9A-F]{{8}}))*)
  | (?P<quoted>"(?:[^"]|"")+")
  | (?P<string>'(?:[^']|'')*')
  | (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![0-9A-Za-z_.]))
  | (?P<sign><=|>=|<>|!=|[=<>(),])
""", re.VERBOSE)  # fmt: skip
_WORDS = frozenset({"and", "or", "not", "in", "like", "ilike", "between", "is", "null"})
_PLAIN = re.compile(rf"{_SEGMENT}(?:\.(?:{_SEGMENT}|[0-9A-F]{{8}}))*")


class FilterError(UsageError):
    """A filter that is not one. `at`: the character it fails at, from 0."""

    def __init__(self, at: int, message: str, *, hint: str = "") -> None:
        super().__init__(f"The filter, character {at + 1}: {message}", hint=hint)
        self.at = at


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written: a number's digits, or the text between the quotes."""

    text: str
    number: bool
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return self.text if self.number else "'" + self.text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Test:
    """One element held against literals. `!=`, `not in` and their like are a Not of this."""

    __test__ = False    # pytest takes a class of this name for its own

    name: str
    op: OneOf["=", "<", "<=", ">", ">=", "in", "between", "like", "ilike", "is null"]
    values: tuple[Literal, ...] = ()
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        name = self.name
        if not _PLAIN.fullmatch(name) or name.lower() in _WORDS:
            name = '"' + name.replace('"', '""') + '"'
        if self.op == "is null":
            return f"{name} is null"
        if self.op == "in":
            return f"{name} in ({', '.join(map(str, self.values))})"
        return f"{name} {self.op} {' and '.join(map(str, self.values))}"


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter

    def __str__(self) -> str:
        return f"not ({self.part})"


@dataclass(frozen=True, slots=True)
class Both:
    """Parts joined by `and` or `or`; two at least, none of them joined by the same word."""

    word: OneOf["and", "or"]
    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return f" {self.word} ".join(f"({p})" if isinstance(p, Both) else str(p) for p in self.parts)


Filter = Test | Not | Both


def tests(tree: Filter) -> Iterator[Test]:
    """Yield every test of a filter, from left to right."""
    if isinstance(tree, Test):
        yield tree
    else:
        for part in (tree.part,) if isinstance(tree, Not) else tree.parts:
            yield from tests(part)


def parse(text: str) -> Filter:
    """Return the tree of a filter. `parse(str(parse(x))) == parse(x)`. Raises FilterError."""
    if len(text) > LONGEST:
        raise FilterError(LONGEST, f"it is longer than {LONGEST:,} characters.")
    parser = _Parser(list(_tokens(text)))
    tree = parser.joined("or", 0)
    if parser.kind != "end":
        raise FilterError(parser.at, "this is one word too many.", hint="Join tests with `and` or `or`.")
    return tree


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield (kind, text, character), and an `end`."""
    pos = 0
    while pos < len(text):
        if text[pos].isspace():
            pos += 1
            continue
        match = _TOKEN.match(text, pos)
        if match is None:
            quote = text[pos] in "'\""
            raise FilterError(pos, "a quote is not closed." if quote else "this is no part of a filter.")
        kind, found = str(match.lastgroup), match[0]
        if "\0" in found:
            raise FilterError(pos, "a NUL is no part of a filter.")
        if kind == "name" and found.lower() in _WORDS:
            kind, found = "word", found.lower()
        elif kind in ("string", "quoted"):
            kind, found = "name" if kind == "quoted" else kind, found[1:-1].replace(found[0] * 2, found[0])
        yield kind, found, pos
        pos = match.end()
    yield "end", "", len(text)


class _Parser:
    def __init__(self, tokens: list[tuple[str, str, int]]) -> None:
        self._tokens, self._next = tokens, 0

    @property
    def kind(self) -> str:
        return self._tokens[self._next][0]

    @property
    def text(self) -> str:
        return self._tokens[self._next][1]

    @property
    def at(self) -> int:
        return self._tokens[self._next][2]

    def took(self, kind: str, *texts: str) -> bool:
        """Step over the next token if it is one of these."""
        if self.kind == kind and self.text in texts:
            self._next += 1
            return True
        return False

    def must(self, kind: str, text: str, why: str) -> None:
        if not self.took(kind, text):
            raise FilterError(self.at, f"`{text}` is wanted here, {why}.")

    def joined(self, word: OneOf["and", "or"], depth: int) -> Filter:
        parts = [self._below(word, depth)]
        while self.took("word", word):
            parts.append(self._below(word, depth))
        if len(parts) == 1:
            return parts[0]
        flat: list[Filter] = []
        for part in parts:
            flat += part.parts if isinstance(part, Both) and part.word == word else (part,)
        return Both(word, tuple(flat))

    def _below(self, word: OneOf["and", "or"], depth: int) -> Filter:
        return self.joined("and", depth) if word == "or" else self._factor(depth)

    def _factor(self, depth: int) -> Filter:
        if depth > DEEPEST:
            raise FilterError(self.at, f"it is nested more than {DEEPEST} deep.")
        if self.took("word", "not"):
            return Not(self._factor(depth + 1))
        if self.took("sign", "("):
            tree = self.joined("or", depth + 1)
            self.must("sign", ")", "to close the one before")
            return tree
        return self._test()

    def _test(self) -> Filter:
        name, at = self.text, self.at
        if self.kind != "name":
            hint = "" if self.kind == "string" else "CompressionForce > 150 and Modality = 'MG'"
            raise FilterError(at, "the name of an element is wanted here.", hint=hint and f"For example {hint}.")
        self._next += 1
        if self.took("word", "is"):
            negated = self.took("word", "not")
            self.must("word", "null", "after `is`")
            return _maybe(negated, Test(name, "is null", (), at))
        if self.kind == "sign" and self.text in ("=", "!=", "<>", "<", "<=", ">", ">="):
            op = self.text
            self._next += 1
            value = self._literal()
            if op in ("!=", "<>"):
                return Not(Test(name, "=", (value,), at))
            return Test(name, op, (value,), at)     # type: ignore[arg-type]
        negated = self.took("word", "not")
        if self.took("word", "in"):
            self.must("sign", "(", "after `in`")
            values = [self._literal()]
            while self.took("sign", ","):
                values.append(self._literal())
                if len(values) > MOST_LITERALS:
                    raise FilterError(at, f"more than {MOST_LITERALS:,} values in one list.")
            self.must("sign", ")", "to end the list")
            return _maybe(negated, Test(name, "in", tuple(values), at))
        if self.took("word", "between"):
            low = self._literal()
            self.must("word", "and", "between the two ends")
            return _maybe(negated, Test(name, "between", (low, self._literal()), at))
        for op in ("like", "ilike"):
            if self.took("word", op):
                if self.kind != "string":
                    raise FilterError(self.at, f"`{op}` takes text in quotes: 'HOLOGIC%'.")
                return _maybe(negated, Test(name, op, (self._literal(),), at))      # type: ignore[arg-type]
        raise FilterError(self.at, "a comparison is wanted here.",
                          hint="One of = != < <= > >= in between like ilike `is null`.")

    def _literal(self) -> Literal:
        kind, text, at = self.kind, self.text, self.at
        if kind not in ("number", "string"):
            hint = "Text stands in single quotes: Modality = 'MG'." if kind == "name" else ""
            raise FilterError(at, "a value is wanted here.", hint=hint)
        self._next += 1
        return Literal(text, kind == "number", at)


def _maybe(negated: bool, test: Test) -> Filter:
    return Not(test) if negated else test
