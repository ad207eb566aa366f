"""The random views of contrastive pre-training [SPEC 6; Thewlis et al. 2019].

All draws come from torch's default generator, so one seed fixes a view.
"""

import io

import torch
import torchvision.transforms as tv_transforms
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor

from data_loader.geometry import resize_square

FACE_MEAN, FACE_STD = (0.5084, 0.4224, 0.3769), (0.2599, 0.2371, 0.2323)
BIRD_MEAN, BIRD_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
JPEG_QUALITY = (30, 98)
JITTER = 0.4  # brightness, contrast and saturation
PCA_ALPHA = 0.1
# Principal components of ImageNet's colours [Krizhevsky et al. 2012, Sec. 4.1].
PCA_VALUES = torch.tensor([0.2175, 0.0188, 0.0045])
PCA_VECTORS = torch.tensor(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


class JPEGNoise:
    """Shrink or enlarge, compress as JPEG, and come back to the first size."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a noisy copy of a square RGB image."""
        side = image.width
        scale = 1 + 0.5 * torch.randn(()).item()
        quality = int(torch.randint(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1, ()))
        noisy = resize_square(image, max(int(0.8 * side), int(side * scale)))
        with io.BytesIO() as buffer:
            noisy.save(buffer, format="JPEG", quality=quality)
            with Image.open(buffer) as compressed:
                return resize_square(compressed.convert("RGB"), side)


class PCANoise:
    """Shift all colours along the principal components of natural images, by AlexNet's recipe."""

    def __call__(self, image: Tensor) -> Tensor:
        """Return image (3, H, W) in [0, 1] plus one random colour."""
        alpha = PCA_ALPHA * torch.randn(3)
        return image + (PCA_VECTORS @ (alpha * PCA_VALUES))[:, None, None]


def random_view(side: int, smallest_scale: float) -> tv_transforms.Compose:
    """Return the random pipeline from a square PIL image to a tensor (3, side, side) in [0, 1].

    Args:
        side: of the result, in pixels.
        smallest_scale: least share of the image's area that RandomResizedCrop keeps.
    """
    return tv_transforms.Compose(
        [
            JPEGNoise(),
            tv_transforms.RandomResizedCrop(side, scale=(smallest_scale, 1.0)),
            tv_transforms.ColorJitter(JITTER, JITTER, JITTER),
            TF.to_tensor,
            PCANoise(),
        ]
    )
