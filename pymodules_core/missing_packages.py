"""What installs a package that an import missed."""

import importlib.util
import sys

# Packages that are called otherwise where they are installed from.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "hydra": "hydra-core",
    "mpl_toolkits": "matplotlib",
    "open_clip": "open-clip-torch",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}


def missing_package_fix(error: BaseException) -> str | None:
    """Return the command that installs what an import missed; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.partition(".")[0]
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        return None
    return f"pip install {_DISTRIBUTIONS.get(package, package)}"
