"""Average weights files of one network, such as those before and after adaptations to a few real patients.

A network that was adapted to few patients knows them best and forgets part of what it had learned before; an average of
both often serves other patients better (Wortsman et al. 2022, robust fine-tuning of zero-shot models). Several
adaptations, such as those of a cross-validation, are averaged with each other first (Wortsman et al. 2022, model
soups)::

    python Testing/averaged_weights.py before.pt fold1/weights.pt fold2/weights.pt --share 0.75 --output averaged.pt

Where the others know more classes than the first network, these come from them alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from JointRegSegLib.inference.network_pass import network_preprocessing
from JointRegSegLib.network.weights import load_weights, save_weights


def main() -> None:
    """Run the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", help="weights file")
    parser.add_argument("others", nargs="+", help="weights files; the record of the training of the last one is kept")
    parser.add_argument("--share", type=float, default=0.5, help="share of the other files (default: 0.5)")
    parser.add_argument("--output", required=True, help="weights file to write, in half precision")
    parser.add_argument(
        "--enhancing-by-brightness",
        action="store_true",
        help="let the brightness of the images decide what part of the tumour enhances and what is too faint; where "
        "the training often dropped modalities, T1ce and FLAIR are also segmented alone",
    )
    parser.add_argument("--training-data", metavar="TEXT", help="sources of the data, which the file then names")
    options = parser.parse_args()
    if not 0 <= options.share <= 1:
        parser.error(f"--share is {options.share} but must lie between 0 and 1")
    try:
        first, *others = (load_weights(path) for path in (options.first, *options.others))
        prepared, *preparations = (network_preprocessing(weights).to_dict() for weights in (first, *others))
    except ValueError as error:
        parser.error(str(error))
    for path, other, preparation in zip(options.others, others, preparations, strict=True):
        same = replace(first.config, **{name: getattr(other.config, name) for name in ("name", "classes", "note")})
        if same != other.config or first.config.classes > other.config.classes:
            parser.error(f"'{options.first}' and '{path}' hold different networks")
        if differing := [name for name, value in prepared.items() if preparation[name] != value]:
            parser.error(
                f"'{options.first}' and '{path}' hold networks for images that are prepared differently "
                f"({', '.join(differing)}): average networks that were trained with the same preprocessing"
            )
    before, after = first.network.state_dict(), [other.network.state_dict() for other in others]
    last = others[-1]
    mean = {name: torch.stack([state[name].float() for state in after]).mean(0) for name in before}
    for name, value in before.items():
        if value.shape != mean[name].shape:  # scores of the classes
            before[name] = torch.cat([value.float(), mean[name][len(value) :]])
    last.network.load_state_dict({name: before[name].float().lerp(mean[name], options.share) for name in before})
    metadata = last.metadata | {"averaged": options.share, "adaptations": len(others)}
    if options.training_data:
        metadata["training_data"] = options.training_data
    if options.enhancing_by_brightness:
        metadata["enhancing_by_brightness"] = True
    save_weights(options.output, last.network, metadata, half=True)


if __name__ == "__main__":
    main()
