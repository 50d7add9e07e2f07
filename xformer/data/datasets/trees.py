"""Generation of ListOps expressions: many trees are grown, evaluated and written out at once.

The distribution is that of the Long Range Arena's generator (Tay et al., 2020, "Long Range Arena"): below the maximum
depth a node is an operator with probability 1/4, with 2 to `max_args` arguments; otherwise it is a digit. A tree is
kept if its length, counted in tokens without parentheses, lies strictly between two bounds.

A forest is a list of levels, each with the number of arguments of every node from left to right (0 for a digit), so
that a node's arguments are consecutive on the next level. Every step is then one array operation per level.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

PADDING, FIRST_DIGIT, FIRST_OPERATOR, END = 0, 1, 11, 15
SYMBOLS = ("<pad>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
MIN, MAX, MED, SM = range(4)
OPERATOR_PROBABILITY = 0.25

# Anonymous, because the levels of a list differ in size.
Level = Int64[np.ndarray, "_"]


class Expressions(NamedTuple):
    """Finished trees: their concatenated tokens, lengths and values."""

    tokens: UInt8[np.ndarray, " tokens"]
    lengths: Int64[np.ndarray, " trees"]
    values: Int64[np.ndarray, " trees"]


def expressions(
    generator: np.random.Generator, roots: int, max_depth: int, max_args: int, min_length: int, max_length: int
) -> Expressions:
    """Grow `roots` trees and finish those whose length is right.

    Args:
        generator: Source of all randomness.
        roots: Trees to start.
        max_depth: Levels of a tree, the root's included.
        max_args: Most arguments of an operator.
        min_length: A kept tree is longer. At least 1, because a lone digit is never grown.
        max_length: A kept tree is shorter.
    """
    levels = grow(generator, roots, max_depth, max_args, min_length, max_length)
    operators = [generator.integers(0, 4, int((level > 0).sum())) for level in levels]
    digits = [generator.integers(0, 10, int((level == 0).sum())) for level in levels]
    sizes = subtree_sizes(levels)
    return Expressions(
        expression_text(levels, operators, digits, sizes), sizes[0], evaluate_expressions(levels, operators, digits)
    )


def grow(
    generator: np.random.Generator, roots: int, max_depth: int, max_args: int, min_length: int, max_length: int
) -> list[Level]:
    """Shapes of the trees that are neither too short nor too long; every root is an operator."""
    levels = [generator.integers(2, max_args + 1, roots)]
    trees = [np.arange(roots)]
    lengths = np.full(roots, 2, dtype=np.int64)
    while levels[-1].any():
        tree = np.repeat(trees[-1], levels[-1])
        level = np.zeros(len(tree), dtype=np.int64)
        if len(levels) + 1 < max_depth:
            is_operator = generator.random(len(tree)) < OPERATOR_PROBABILITY
            level[is_operator] = generator.integers(2, max_args + 1, int(is_operator.sum()))
        lengths += np.bincount(tree, weights=1 + (level > 0), minlength=roots).astype(np.int64)
        levels.append(level)
        trees.append(tree)
        # Trees only get longer, so dropping one now changes nothing but the time.
        levels, trees = _keep(levels, trees, lengths < max_length)
    return _keep(levels, trees, (lengths > min_length) & (lengths < max_length))[0]


def _keep(levels: list[Level], trees: list[Level], kept: Bool[np.ndarray, " trees"]) -> tuple[list[Level], list[Level]]:
    masks = [kept[tree] for tree in trees]
    return (
        [level[mask] for level, mask in zip(levels, masks, strict=True)],
        [tree[mask] for tree, mask in zip(trees, masks, strict=True)],
    )


def starts_of(arities: Level) -> Level:
    """The index of each operator's first argument on the next level, from the numbers of arguments."""
    starts: Level = np.cumsum(arities) - arities
    return starts


def subtree_sizes(levels: list[Level]) -> list[Level]:
    """The number of tokens of each node's subtree: 1 for a digit, two brackets plus the arguments for an operator."""
    sizes = [np.ones(len(levels[-1]), dtype=np.int64)]
    for level in reversed(levels[:-1]):
        size = np.ones(len(level), dtype=np.int64)
        operator = level > 0
        if operator.any():
            size[operator] = 2 + np.add.reduceat(sizes[-1], starts_of(level[operator]))
        sizes.append(size)
    return sizes[::-1]


def evaluate_expressions(levels: list[Level], operators: list[Level], digits: list[Level]) -> Level:
    """Compute the value of each tree, from the leaves up."""
    below = np.empty(0, dtype=np.int64)
    for level, operator, digit in zip(reversed(levels), reversed(operators), reversed(digits), strict=True):
        values = np.empty(len(level), dtype=np.int64)
        values[level == 0] = digit
        values[level > 0] = apply(operator, below, level[level > 0])
        below = values
    return below


def apply(
    operators: Int64[np.ndarray, " calls"],
    arguments: Int64[np.ndarray, " arguments"],
    arities: Int64[np.ndarray, " calls"],
) -> Int64[np.ndarray, " calls"]:
    """Apply each operator to its own run of arguments.

    The median of an even number of arguments is the mean of the middle two, rounded down.

    Args:
        operators: `MIN`, `MAX`, `MED` or `SM` (sum modulo 10).
        arguments: All operators' arguments, one run after the other.
        arities: Lengths of the runs.
    """
    if not len(operators):
        return np.empty(0, dtype=np.int64)
    starts = starts_of(arities)
    owner = np.repeat(np.arange(len(operators)), arities)
    ordered = arguments[np.lexsort((arguments, owner))]
    median = (ordered[starts + (arities - 1) // 2] + ordered[starts + arities // 2]) // 2
    smallest, largest = ordered[starts], ordered[starts + arities - 1]
    return np.choose(operators, [smallest, largest, median, np.add.reduceat(arguments, starts) % 10])


def expression_text(
    levels: list[Level], operators: list[Level], digits: list[Level], sizes: list[Level]
) -> UInt8[np.ndarray, " tokens"]:
    """Write out the tokens of all trees in prefix order: operator, arguments, closing bracket."""
    tokens = np.empty(int(sizes[0].sum()), dtype=np.uint8)
    position = starts_of(sizes[0])
    for depth, level in enumerate(levels):
        is_operator = level > 0
        tokens[position[~is_operator]] = FIRST_DIGIT + digits[depth]
        tokens[position[is_operator]] = FIRST_OPERATOR + operators[depth]
        tokens[(position + sizes[depth] - 1)[is_operator]] = END
        # A level that only dropped trees had is still there, empty.
        if not is_operator.any():
            break
        arities, before = level[is_operator], starts_of(sizes[depth + 1])
        first = position[is_operator] + 1 - before[starts_of(arities)]
        position = before + np.repeat(first, arities)
    return tokens
