import cv2
import numpy as np

from loc.plugins.protocols import PluginConfig
from loc.types import LocalFeatures


class OpenCVSift:
    """OpenCV's SIFT; the image arrives upright, grey, in [0, 1], at most resize_max px long."""

    class Config(PluginConfig):
        max_keypoints: int = 2000

    version, licence, paper = 1, "Apache-2.0", "Lowe, IJCV 2004"
    pixel_origin, color, parallel, min_side, ranked, weights = "center", "gray", "process", 32, True, ()

    def __init__(self, config, *, device, dtype):
        self.sift = cv2.SIFT_create(nfeatures=config.max_keypoints)

    def __call__(self, images):
        found, rows = self.sift.detectAndCompute((images[0, 0] * 255).astype(np.uint8), None)
        rows = np.zeros((0, 128), np.float32) if rows is None else rows
        xy = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
        scores = np.array([point.response for point in found], np.float32)
        height, width = images.shape[2:]
        return [LocalFeatures(xy, scores, rows, image_wh=(width, height))]
