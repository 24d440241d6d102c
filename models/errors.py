"""Every error that tastewave raises on purpose.

TastewaveError
├── EventError            malformed_event    the bytes are not an event of the contract
│   └── FutureEvent       future_event       dated beyond the tolerance into the future
├── FetchError            (stream.audio)     the audio could not be brought here
│   ├── FetchRefused      refused_uri        a scheme, address, bucket or file that settings do not allow
│   ├── NotFound          not_found          the address answers, the audio is not there
│   ├── TooLarge          too_large          more bytes than allowed
│   └── FetchFailed       fetch_failed       the other side failed for good, or every retry did
├── AudioError                               the bytes were fetched, and cannot be tagged
│   ├── NotAudio          not_audio          no decoder reads it
│   ├── Damaged           damaged            most of it is damage
│   ├── TooShort          too_short          under 3 s of decodable audio
│   ├── TooLong           too_long           over the set length
│   └── Silent            silent             under 3 s of sound
├── ProcessingError                          the pool process that worked on it did not come back
│   ├── ProcessCrashed    process_crashed    it died (signal, crash of a decoder), and again when tried anew
│   │   └── KilledWorkers (stream.store.hearings)   several workers were killed while they heard it
│   ├── ProcessTimedOut   process_timed_out  it ran past its time and was ended
│   └── OutOfMemory       out_of_memory      it asked for more memory than it may have
├── HostAway              (stream.audio)     the server of the audio does not answer now: the track waits
├── KafkaUnusable, RedisUnusable             (stream) a command or a worker cannot use its server
├── PoolUnusable, MachineUnusable, ForeignValue  (stream) what a record waits for, and is not to blame for
├── UploadFailed, TaggingFailed, NoAnswer, RewindRefused, RedriveFailed, CorrectionFailed
│                         (stream)           a command could not do what was asked
├── WorkerCrashed         (stream.worker)    Faust gave up; its supervisor starts the worker anew
├── DumpFailed            (offline)          Kafka, or the folder of a dump, does not do what it needs
├── SpreadFailed          (offline)          processes die, whatever they are given to work on
├── LaunchError           (deploy.local)     a local server does not start
├── ReleaseError                             a release or a trained tower is missing, damaged or of another shape
└── SettingsError                            a setting or an argument cannot be used

The message says what was wrong, what was got and what to do, in one sentence. `reason` is the code in
dead letters, metrics and the `reason` field of Redis; anything that is not a TastewaveError ends as
`internal`.
"""

from typing import ClassVar


class TastewaveError(Exception):
    """Root of the tree."""

    reason: ClassVar[str] = "internal"


class EventError(TastewaveError):
    """The bytes are not an event of the contract."""

    reason = "malformed_event"


class FutureEvent(EventError):
    """The event is dated beyond the tolerance into the future."""

    reason = "future_event"


class FetchError(TastewaveError):
    """The audio could not be brought here."""

    reason = "fetch_failed"


class FetchRefused(FetchError):
    """Settings do not allow this scheme, address, bucket or file."""

    reason = "refused_uri"


class NotFound(FetchError):
    """The address answers, the audio is not there."""

    reason = "not_found"


class TooLarge(FetchError):
    """The audio has more bytes than allowed."""

    reason = "too_large"


class FetchFailed(FetchError):
    """The other side failed for good, or in every retry."""


class AudioError(TastewaveError):
    """The bytes were fetched, and cannot be tagged."""

    reason = "not_audio"


class NotAudio(AudioError):
    """No decoder reads it."""


class Damaged(AudioError):
    """Most of it is damage."""

    reason = "damaged"


class TooShort(AudioError):
    """Under 3 s of decodable audio."""

    reason = "too_short"


class TooLong(AudioError):
    """Over the set length."""

    reason = "too_long"


class Silent(AudioError):
    """Under 3 s of it are louder than -70 dB of full scale."""

    reason = "silent"


class ProcessingError(TastewaveError):
    """The pool process that worked on it did not come back."""

    reason = "process_crashed"


class ProcessCrashed(ProcessingError):
    """The process died, and again when the work was tried anew."""


class ProcessTimedOut(ProcessingError):
    """The process ran past its time and was ended."""

    reason = "process_timed_out"


class OutOfMemory(ProcessingError):
    """The process asked for more memory than it may have."""

    reason = "out_of_memory"


class ReleaseError(TastewaveError):
    """A release, or another sealed folder, is missing, damaged or of another shape."""


class SettingsError(TastewaveError):
    """A setting or an argument cannot be used."""
