"""Adds a checksum to every committed record that has none: python benchmarks/stamp_records.py

`reproduce record` writes a checksum into each new record. A record that has been changed later is then refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.checkpoints import write_atomic  # noqa: E402
from common.drawing.results import read_record, stamped  # noqa: E402


def main() -> None:
    """Add a checksum to the records that have none, and print how many these were."""
    count = 0
    for path in sorted(ROOT.glob("*/records/*.json")):
        read_record(path)  # raises InputError if the record is damaged
        record = json.loads(path.read_text(encoding="utf-8"))
        if "checksum" not in record:
            write_atomic(path, stamped(record))
            count += 1
    print(f"{count} records stamped")


if __name__ == "__main__":
    main()
