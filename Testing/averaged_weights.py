"""Average two weights files of one network, such as those before and after an adaptation to a few real patients.

A network that was adapted to few patients knows them best and forgets part of what it had learned before; an average of
both often serves other patients better (Wortsman et al. 2022, robust fine-tuning of zero-shot models)::

    python Testing/averaged_weights.py before.pt after.pt --share 0.75 --output averaged.pt
"""

from __future__ import annotations

import argparse

from JointRegSegLib.network.weights import load_weights, save_weights


def main() -> None:
    """Run the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", help="weights file")
    parser.add_argument("second", help="weights file, whose record of the training is kept")
    parser.add_argument("--share", type=float, default=0.5, help="share of the second file (default: 0.5)")
    parser.add_argument("--output", required=True, help="weights file to write, in half precision")
    options = parser.parse_args()
    if not 0 <= options.share <= 1:
        parser.error(f"--share is {options.share} but must lie between 0 and 1")
    first, second = load_weights(options.first), load_weights(options.second)
    if first.config != second.config:
        parser.error(f"'{options.first}' and '{options.second}' hold different networks")
    before, after = first.network.state_dict(), second.network.state_dict()
    second.network.load_state_dict({name: before[name].lerp(after[name], options.share) for name in before})
    save_weights(options.output, second.network, second.metadata | {"averaged": options.share}, half=True)


if __name__ == "__main__":
    main()
