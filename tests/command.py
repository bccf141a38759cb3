"""The command line, as a launcher starts it: torchrun ... command.py train RECIPE."""

from rlgf.cli import main

if __name__ == "__main__":
    main()
