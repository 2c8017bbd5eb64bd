import cv2
import numpy as np

from loc.plugins.protocols import PluginConfig
from loc.types import LocalFeatures


class CornerPatches:
    """Shi-Tomasi corners described by ORB; the image arrives upright, grey, in [0, 1]."""

    class Config(PluginConfig):
        max_keypoints: int = 2000

    version, licence, paper = 1, "Apache-2.0", "Rublee et al., ORB, ICCV 2011"
    pixel_origin, color, parallel, min_side, ranked, weights = "center", "gray", "process", 64, True, ()

    def __init__(self, config, *, device, dtype):
        self.orb = cv2.ORB_create(nfeatures=config.max_keypoints)

    def __call__(self, images):
        found, bits = self.orb.detectAndCompute((images[0, 0] * 255).astype(np.uint8), None)
        bits = np.zeros((0, 32), np.uint8) if bits is None else bits
        signs = np.unpackbits(bits, axis=1).astype(np.float32) / 8 - 1 / 16  # unit vectors
        xy = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
        scores = np.array([point.response for point in found], np.float32)
        height, width = images.shape[2:]
        return [LocalFeatures(xy, scores, signs, image_wh=(width, height))]
