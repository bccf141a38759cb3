"""``python -m rlgf``, and what ``torchrun -m rlgf`` starts in each process."""

from rlgf.cli import main

main()
