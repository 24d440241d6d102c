"""What can go wrong when answers are read."""


class ReaderError(Exception):
    """The base of all errors of this package."""


class Unavailable(ReaderError):
    """Redis does not answer in time, is not reachable, or refuses."""


class NoLiveRelease(ReaderError):
    """No release is live."""


class ContractBroken(ReaderError):
    """What Redis holds is not as contract 1 says."""
