"""python -m lucir.reproduce: reproduces the paper's figures, from training to the report."""

from common.command.cli import main

if __name__ == "__main__":
    main(paper="lucir")
