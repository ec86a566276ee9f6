"""Write the golden losses anew: `make golden`, after a change of the mathematics only (see CONTRIBUTING.md)."""

import json

from tests.golden.training import LOSSES, losses


def main() -> None:
    """Train, and replace the stored losses."""
    beside = LOSSES.with_suffix(".json.new")
    beside.write_text(json.dumps(losses(), indent=1) + "\n", encoding="utf-8")
    beside.replace(LOSSES)
    print(f"wrote {LOSSES}")


if __name__ == "__main__":
    main()
