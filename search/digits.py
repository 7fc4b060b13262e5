"""scikit-learn's handwritten digits, read from its file: importing scikit-learn takes seconds.

The file is part of the package since 2010; where it is not found, scikit-learn is asked.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.splits import Labels

FILE = Path("datasets", "data", "digits.csv.gz")
SIDE = 8

# The split of the 1,797 images, as ``search.splits.pack`` writes it: what scikit-learn's
# train_test_split gave, stratified, with seed 0, for 360 test images and then 360 for validation.
SPLIT = (
    "eNpdVQGSAzEIEv7/6NsIqL1tp5NNoiKirfoe+AdaFftb7Hey3gfvq43yrwxk1Na0IXznLQDaR8X02+w3m71D1Hnaxf"
    "f0zXbTy45f2Ftj9Xl4ISmvHRKbDo+RUnOADwbiUTjHG5eFTsKo3iGpQ9b6zduzA3/QYRK1h3dB9+m3BqsN6BiKTRhF"
    "79VDjAm0FBLDxCSqkiJUFByDFFsuTyou0IDODMMuhkUOid89Yzvl5xSv1ieP1a2DCRniXn68ZHU1rYEaKGVZSIJJhl"
    "W/EIEAXQI3JQu0BcujI0jkFAkR+8iXPNVGLYmB7BWkRIzkk1a4VStZ2vYLJuJRitsOdeU31LY5MUbqD0u2KRLuAGEI"
    "YxoQ7i9fAKegqNMBuLLizAgoC5WpNdhg1otYexA9J+CGTlRQRWZT9m5pQ2unDF5GzlAInmfaNYTJNBmjgjqdzZCIq0"
    "T3bOextXeat3UrELE9IyXy3/wyrEtdiosgpInwhEnO4MEUFuTq+Gv3FHmeKpil+kIOM4G3bD38PDUwolqm2qfKkSnB"
    "08JYeVQGl6KzrAHtmdUrZyl2W4NSDmZ4R15JWLXOHwhm3As5ftuBx3MPy6MA5l9igSs08AdJSQQ5"
)


def read_digits() -> tuple[NDArray[np.int64], Labels]:
    """The images (1797, 8, 8) of levels 0 to 16, and their labels (1797,)."""
    found = importlib.util.find_spec("sklearn")
    for folder in found.submodule_search_locations or () if found else ():
        if (file := Path(folder, FILE)).is_file():
            rows = np.loadtxt(file, delimiter=",", dtype=np.int64)
            return rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1]
    from sklearn.datasets import load_digits

    raw = load_digits()
    return raw.images.astype(np.int64), raw.target.astype(np.int64)
