"""Tasks."""
from rlgf.tasks.base import TASKS, Task
def build_task(name, options): raise NotImplementedError
