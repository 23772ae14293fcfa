"""What codes know of labels: linear probes."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def accuracy(
    train_z: np.ndarray, train_labels: np.ndarray, test_z: np.ndarray, test_labels: np.ndarray
) -> float:
    """Returns the test accuracy of logistic regression on codes, standardised on the train part.

    Args:
      train_z: [N, D].
      train_labels: int [N].
      test_z: [M, D].
      test_labels: int [M].
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(probe.fit(train_z, train_labels).score(test_z, test_labels))
