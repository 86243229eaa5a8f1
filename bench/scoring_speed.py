"""How fast answers in mathematics are scored: ``python -m bench.scoring_speed [--answers N] [--data FOLDER]``.

Answers are MATH-500's golds, each against its own problem and against others, in other spellings too, so that all ways
of comparing have work to do. No pair comes twice: what a pool remembers does not help. Prints one JSON
line; CPU seconds are those of all processes, start included; ``load`` is the machine's before and after.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import time
from collections import Counter
from pathlib import Path

from bench.scorers.pool import MathPool
from pipo.data import benchmarks

SPELLINGS = ("\\boxed{{{0}}}", "\\boxed{{ {0} + 0}}", "\\boxed{{({0})}}", "\\boxed{{1 \\cdot {0}}}")


def answers(count: int, data: Path | None) -> list[tuple[str, str]]:
    """(text, gold): by turns the right answer in some spelling, and what is right elsewhere. No pair twice."""
    golds = list(dict.fromkeys(a.entry.gold for a in benchmarks.load(benchmarks.shipped("math500"), data).items))
    made: dict[tuple[str, str], None] = {}
    for step, (number, gold) in itertools.product(range(len(golds)), enumerate(golds)):
        other = golds[(number + step) % len(golds)]
        spelling = SPELLINGS[step % len(SPELLINGS)] if step < len(SPELLINGS) else SPELLINGS[0]
        own = gold if step < len(SPELLINGS) else other
        made[spelling.format(own), gold] = None
        if len(made) >= count:
            break
    return list(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    texts = answers(asked.answers, asked.data)
    start, load = time.perf_counter(), os.getloadavg()[0]
    with MathPool(workers=asked.workers) as pool:
        verdicts = pool.score_texts(texts)
        wall = time.perf_counter() - start
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(u.ru_utime + u.ru_stime for u in used)
    counts = {f"{by} {'right' if right else 'wrong'}": n for (by, right), n in
              sorted(Counter((v.by, v.right) for v in verdicts).items())}  # fmt: skip
    limits = sum(v.limit for v in verdicts)
    print(
        json.dumps(
            {
                "answers": len(texts),
                "wall_s": round(wall, 2),
                "cpu_s": round(cpu_s, 2),
                "load": [round(load, 2), round(os.getloadavg()[0], 2)],
                "limits": limits,
                **counts,
            }
        )
    )


if __name__ == "__main__":
    main()
