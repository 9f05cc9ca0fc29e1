"""Shards: whole studies of a batch, worth about 30 CPU seconds each. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from pipeline.stage.inventory import Landed

MOST = 512


def assign(rows: Iterable[Landed], max_bytes: int, max_instances: int, eligible: Callable[[Landed], bool]) -> int:
    """Number the shard of each admitted row and return how many there are.

    Studies go in order of their UID; a study is never split, so a larger one is a shard alone. Only eligible instances
    weigh. Where that makes more than 512, the sizes are doubled until it does not.
    """
    studies: dict[str, list[Landed]] = defaultdict(list)
    for row in rows:
        studies[row.study_uid or ""].append(row)
    weights = {}
    for study in sorted(studies):
        weighed = [row.size for row in studies[study] if eligible(row)]
        weights[study] = (sum(weighed), len(weighed))
    while True:
        numbers = _pack(weights, max_bytes, max_instances)
        if len(set(numbers.values())) <= MOST:
            break
        max_bytes, max_instances = 2 * max_bytes, 2 * max_instances
    for study, of_study in studies.items():
        for row in of_study:
            row.shard = numbers[study]
    return len(set(numbers.values()))


def _pack(weights: dict[str, tuple[int, int]], max_bytes: int, max_instances: int) -> dict[str, int]:
    numbers: dict[str, int] = {}
    number = size = count = 0
    for study, (more_size, more_count) in weights.items():
        if count and more_count and (size + more_size > max_bytes or count + more_count > max_instances):
            number, size, count = number + 1, 0, 0
        numbers[study] = number
        size, count = size + more_size, count + more_count
    return numbers
