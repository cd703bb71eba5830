"""python -m bbn.reproduce: every figure of the paper, from runs to report."""

from common.cli import main

if __name__ == "__main__":
    main(paper="bbn")
