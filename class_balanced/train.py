"""`python -m class_balanced.train` trains one method: the paper's own, unless another is named."""

from common.command.train import main

if __name__ == "__main__":
    main("class_balanced")
