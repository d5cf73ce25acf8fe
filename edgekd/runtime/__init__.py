"""The device side: loads a bundle and classifies images. Needs NumPy, Pillow and one inference engine."""

from edgekd.runtime.bundle import BundleManifest, VariantRecord
from edgekd.runtime.loading import load
from edgekd.runtime.model import Model, Prediction, Verification
from edgekd.runtime.preprocess import Preprocessing

__all__ = ["BundleManifest", "Model", "Prediction", "Preprocessing", "VariantRecord", "Verification", "load"]
