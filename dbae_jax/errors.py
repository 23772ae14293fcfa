"""Errors that a user can mend: one sentence that says what is wrong, where, and what to do."""


class DBAEError(ValueError):
    """Base of every error of this package; the command line prints it without a traceback."""

    exit_code = 2  # of the command that meets it


class ConfigError(DBAEError):
    """A key, type, range or combination of the config is wrong."""


class DataError(DBAEError):
    """Images, codes or a data set are not what was announced."""


class TooFewError(DataError):
    """There are fewer images or examples than a measure is defined for."""


class CheckpointError(DBAEError):
    """A workdir or a state dict is missing, torn or of another model."""


class NonFiniteError(DBAEError):
    """Training left the finite numbers."""


class DeviceMemoryError(DBAEError):
    """The memory of the devices is full."""


class PreemptedError(DBAEError):
    """The machine is about to be taken away; the state is saved, and the run can go on."""

    exit_code = 75  # "temporary failure, try again", by sysexits.h


class LostProcessError(DBAEError):
    """Another process of the run has gone, and the run cannot go on without it."""

    exit_code = 76
