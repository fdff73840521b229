"""The few ways this package fails on purpose, each with the exit code its command ends with.

A message is one line a tired operator can act on: which file or key, what is wrong, what would be right.
"""


class JetsonClusterError(Exception):
    """Base of every deliberate failure; the command line prints it without a traceback."""

    exit_code = 1


class UserError(JetsonClusterError):
    """What the user gave is wrong: a config, recipe, model, codebook, policy or argument."""

    exit_code = 2


class WorldError(JetsonClusterError):
    """The world failed: a disk, a device, a network, a missing runtime."""

    exit_code = 1


class GpuLost(JetsonClusterError):
    """CUDA failed in a way that leaves its context unusable; only a new process can use the GPU."""

    exit_code = 3
