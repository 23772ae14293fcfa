"""TFDS builders of the data sets, each reading the files as their publishers give them out."""
