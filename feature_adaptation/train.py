"""`python -m feature_adaptation.train` trains one method: the paper's own, unless another is named."""

from common.command.train import main

if __name__ == "__main__":
    main("feature_adaptation")
