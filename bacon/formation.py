"""The four-images-on-a-canvas layout called multi-formation (IDM: Zhao et al., CVPR 2023).

It needs nothing but torch. Images are (N, C, H, W), float32 or float64. On CUDA the gradient of
`split` is a sum by atomics, so its last bits vary from run to run.
"""

import torch.nn.functional as F


def _size(images, factor):
    height, width = images.shape[2:]
    if height % factor or width % factor:
        needed = f"a height and width divisible by {factor}, not {height}x{width} images"
        raise ValueError(f"multi-formation needs {needed}")
    return height, width


def split(canvases, factor=2):
    """Cut canvases (n, C, H, W) into quadrants, each upsampled to H x W (bilinear): (4n, C, H, W).

    All top-left ones come first, then bottom-left, top-right, bottom-right. factor=1, a set without
    multi-formation, returns the canvases as they are. ValueError if H or W is odd.
    """
    height, width = _size(canvases, factor)
    quadrants = canvases.unflatten(3, (factor, -1)).unflatten(2, (factor, -1))
    quadrants = quadrants.permute(4, 2, 0, 1, 3, 5).flatten(0, 2)
    return F.interpolate(quadrants, (height, width), mode="bilinear", align_corners=False)


def tile(images, factor=2):
    """Put images (4n, C, H, W), ordered as `split` returns them, on canvases (n, C, H, W).

    Each is halved by 2x2 means. ValueError if H or W is odd.
    """
    height, width = _size(images, factor)
    halved = (height // factor, width // factor)
    small = F.interpolate(images, halved, mode="bilinear", align_corners=False)
    quadrants = small.unflatten(0, (factor, factor, -1))
    return quadrants.permute(2, 3, 1, 4, 0, 5).flatten(4).flatten(2, 3)
