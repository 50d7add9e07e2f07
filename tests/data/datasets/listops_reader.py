"""A reader of ListOps expressions that shares nothing with their generator."""

import statistics

from xformer.data.datasets import trees

FUNCTIONS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def value_of(words: list[str]) -> int:
    """A reader that shares nothing with the generator: recursive, over words, with Python's own functions."""

    def read(position: int) -> tuple[int, int]:
        if words[position] not in FUNCTIONS:
            return int(words[position]), position + 1
        function, position, values = FUNCTIONS[words[position]], position + 1, []
        while words[position] != "]":
            value, position = read(position)
            values.append(value)
        assert len(values) >= 2
        return function(values), position + 1

    value, end = read(0)
    assert end == len(words)
    return value


def depth_of(words: list[str]) -> int:
    depth = deepest = 0
    for word in words:
        depth += (word in FUNCTIONS) - (word == "]")
        deepest = max(deepest, depth)
    return deepest + 1


def words_of(tokens) -> list[str]:
    return [trees.SYMBOLS[token] for token in tokens]
