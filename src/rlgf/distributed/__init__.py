"""One run in several processes: each collects a share of the episodes and learns from a share of every step.

Start them with ``torchrun`` or ``accelerate launch``. Every process holds the whole model, or its share of it
(`rlgf.models.sharding`); what an update learns does not depend on how many there are.

All processes go through the same exchanges in the same order, and every exchange carries either what it is for
or the failure of a process that will not get any further (`tell`). So a failure anywhere, at any moment, is
known everywhere at the next exchange, and nobody waits for somebody who is gone. Who dies without a word breaks
the connection, or is missed after the time-out.
"""

from rlgf.distributed.link import (
    count,
    device,
    every_nth,
    gathered,
    group,
    in_touch,
    is_main,
    join,
    launched,
    main_first,
    mesh,
    one_fate,
    part,
    portion,
    rank,
    same,
    share,
    tell,
    together,
)
from rlgf.distributed.tensors import from_main, sum_gradients, sum_numbers

__all__ = [
    "count",
    "device",
    "every_nth",
    "from_main",
    "gathered",
    "group",
    "in_touch",
    "is_main",
    "join",
    "launched",
    "main_first",
    "mesh",
    "one_fate",
    "part",
    "portion",
    "rank",
    "same",
    "share",
    "sum_gradients",
    "sum_numbers",
    "tell",
    "together",
]
