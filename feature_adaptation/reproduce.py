"""python -m feature_adaptation.reproduce: every figure of the paper, from runs to report."""

from common.cli import main

if __name__ == "__main__":
    main(paper="feature_adaptation")
