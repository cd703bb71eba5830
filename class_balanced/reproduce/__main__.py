"""`python -m class_balanced.reproduce` makes the paper's figures, from runs to report."""

from common.command.cli import main

if __name__ == "__main__":
    main(paper="class_balanced")
