"""How long a training waits for the checkpoint of an epoch: for the copy that it hands on, against for the files.

    python benchmarks/checkpoint.py [--networks resnet50_cbam inception_v3 vgg16] [--folder /dev/shm] [--device cuda]

Networks and optimisers of the paper (P Adam, two moments; G SGD, one): last.pt (all) and best.pt (the weights), as
after an epoch that is the best so far. `loop.train` copies the state, and a thread writes the files from the copy while
the next epoch trains. Only where that epoch is shorter than the writing, the rest of the writing is waited for, too.
"""

import tempfile
from pathlib import Path

import tables
import torch

from mammo_lib import config
from mammo_lib.models import networks
from mammo_lib.training import checkpoint, step

PAPER = config.PROFILES["paper"]
REPEATS = 5


def measure(stage: str, name: str, folder: Path, device: torch.device) -> list[str]:
    """A row of the table."""
    network = networks.build(name, size=PAPER.size(stage)).to(device)
    optimiser = step.make_optimiser(network, PAPER.training(stage))
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    optimiser.step()  # moments are made in the first step
    tensors = {"network": network.state_dict(), "optimiser": optimiser.state_dict()["state"]}
    copied = checkpoint.host_copy(tensors)  # the first of a training takes its memory, too

    def files() -> None:
        checkpoint.save(folder / "last.pt", {"config": {}, **copied})
        checkpoint.save(folder / "best.pt", {"config": {}, "network": copied["network"]}, keep_previous=False)

    copying, writing = tables.in_turns([lambda: checkpoint.host_copy(tensors, copied), files], REPEATS, device)
    megabytes = sum((folder / file).stat().st_size for file in ("last.pt", "best.pt")) / 1e6
    label = config.NETWORK_LABELS[name]
    return [stage, label, f"{megabytes:.0f}", f"{copying:.3f}", f"{writing:.2f}", f"{writing / copying:.0f}"]


def main() -> None:
    parser = tables.parser(__doc__ or "", "checkpoint")
    parser.add_argument("--networks", nargs="+", default=["resnet50_cbam", "inception_v3", "vgg16"])
    parser.add_argument("--folder", type=Path, help="where the files go (the system's folder for temporary files)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        place, device = Path(folder), torch.device(arguments.device)
        rows = [measure(stage, name, place, device) for stage in ("P", "G") for name in arguments.networks]
    what = f"Files of an epoch that is the best so far; medians of {REPEATS}."
    header = ["stage", "network", "files, MB", "copied in, s", "written in, s", "times"]
    tables.write("checkpoint", arguments, what, header, rows)


if __name__ == "__main__":
    main()
