"""Dense contrast, steps of `train_dense.py` against the first trial's, in image pairs a second.

Images are in memory for both. A turn makes the views and takes the steps. The literal side has the
trial's network and as many queries: float32, torchvision's ResNet, a convolution for each of its
maps, whose results are resized and added, and 96 places of a pair of views. Ours seeks 256 of
each. Letters: B images, W the side of a view, D channels.
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from benchmarks.measure import build_parser, compare, decoded
from benchmarks.steps import DENSE_DIM, SIDE, as_items, build_dense, contrast_places, take_steps
from utils.script import run_script

PLACES = 48  # of each view
STAGES = [f"layer{stage}" for stage in range(1, 5)]


def main() -> None:
    """Time steps of the trial and of ours, in turns."""
    size = {"rounds": 7, "images": 128, "batch_size": 32}
    kinds = {"data_folder": ..., "model": "resnet18", "precisions": ["off", "bf16"]}
    args = build_parser(__doc__, **kinds, **size).parse_args()
    _, _, squares = decoded(args.data_folder, args.images)
    batches = as_items(squares.split(args.batch_size))
    ways = {"the trial, float32": take_steps(contrast_places(Trial(args.model), PLACES), batches)}
    for amp in args.precisions:
        ways[f"ours, --amp {amp}"] = take_steps(build_dense(args.model), batches, amp=amp)
    title = f"{args.model}, {SIDE} px, batch {args.batch_size}, dense contrast"
    compare(title, ways, args.rounds, "pairs/s", args.images)


class Trial(nn.Module):
    """The trial's embedding of views (B, 3, W, W): unit vectors (B, D, W / 4, W / 4)."""

    def __init__(self, model: str) -> None:
        super().__init__()
        network = getattr(torchvision.models, model)(weights=None)
        self.encoder = create_feature_extractor(network, STAGES).train()
        self.encoder.to(memory_format=torch.channels_last)
        with torch.no_grad():
            maps = self.encoder(torch.zeros(2, 3, SIDE, SIDE)).values()
        self.head = nn.ModuleList(nn.Conv2d(m.shape[1], DENSE_DIM, 1) for m in maps)

    def forward(self, views: Tensor) -> Tensor:
        """Embed views."""
        levels, shape = zip(self.head, self.encoder(views).values(), strict=True), [SIDE // 4] * 2
        resized = [F.interpolate(head(m), shape, mode="bilinear") for head, m in levels]
        return F.normalize(torch.stack(resized).sum(0), dim=1)


if __name__ == "__main__":
    run_script(main)
