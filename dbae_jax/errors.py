"""The errors of this package that a user can fix.

Each message is a sentence that states what is wrong, where, and what to do:

    from dbae_jax import DBAE, errors

    try:
        model = DBAE.load("runs/digits")
    except errors.CheckpointError as error:
        print(error)
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DBAEError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "LostProcessError",
    "MissingPriorError",
    "NonFiniteError",
    "PreemptedError",
    "StorageError",
    "TooFewError",
    "WorkdirInUseError",
]


class DBAEError(ValueError):
    """The base class of all errors of this package.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    exit_code = 2


class ConfigError(DBAEError):
    """A key, a type, a range or a combination of values in the config is wrong."""


class DataError(DBAEError):
    """Images, latent codes or a data set do not have the required form."""


class TooFewError(DataError):
    """There are fewer images or examples than a computation needs."""


class CheckpointError(DBAEError):
    """A workdir or a file of weights is missing, damaged or of a different model."""


class MissingPriorError(CheckpointError):
    """A model has no latent prior."""


class NonFiniteError(DBAEError):
    """A value of the training is infinite or not a number."""


class DeviceError(DBAEError):
    """The devices that were asked for are missing."""


class DeviceMemoryError(DBAEError):
    """The memory of the devices, or of the computer, is full."""


class StorageError(DBAEError):
    """A file cannot be read or written: the disk is full or read-only, or access is denied."""


class WorkdirInUseError(DBAEError):
    """Another command is writing into the workdir."""


class PreemptedError(DBAEError):
    """Training was stopped by a SIGTERM or Ctrl-C; the state is saved, and the run can resume."""

    exit_code = 75  # "temporary failure, try again" in sysexits.h


class LostProcessError(DBAEError):
    """A different process of the run has ended, and the run cannot continue without it."""

    exit_code = 76
