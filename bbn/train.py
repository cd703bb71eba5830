"""python -m bbn.train: trains one method once. The default is the paper's own method."""

from common.command.train import main

if __name__ == "__main__":
    main("bbn")
