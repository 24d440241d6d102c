"""Which servers of audio count as away, what their tracks do meanwhile, and that they hold up nobody for long."""

import asyncio
import errno
import itertools
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from aiohttp import web

from models.errors import FetchFailed, FetchRefused, NotFound
from stream.audio.breaker import FEW, LISTED_PATIENCE_S, PATIENCE_S, Breaker, HostAway
from stream.audio.fetch import Fetcher
from stream.audio.gates import is_public
from stream.settings import load_settings
from tests.stream.audio.sites import AUDIO, PUBLIC, Resolver, Site, audio, checked, redirect, reply

STORE, OTHER = "https://store.example", "https://other.example"
LONGEST_WAIT_S = 10.0


class Sea:
    """Servers that answer or do not, a clock that is set by hand, and a breaker between."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.breaker = Breaker(monotonic=lambda: self.now)
        self._numbers = itertools.count()

    def fetch(self, server: str, *, track: str | None = None, listed: bool = False) -> str:
        """What becomes of a fetch: heard, failed or waits; where it was not even tried, "at once" is added."""
        uri = track or f"{server}/{next(self._numbers)}.mp3?token=secret"
        with self.breaker.visit(uri) as visit:
            try:
                visit.reach(server, listed=listed)
            except HostAway as error:
                return "waits at once" if "secret" not in str(error) else str(error)
            except FetchFailed as error:
                return "failed at once" if "secret" not in str(error) else str(error)
            self.asked.append(server)
            if server not in self.down:
                with visit.answering():
                    return "heard"
            error = visit.failed(FetchFailed("broke off"), trouble="broke off")
            return "waits" if isinstance(error, HostAway) else "failed"

    def fail(self, server: str, *, listed: bool = False) -> None:
        """The server goes down, and is found to be away."""
        self.down.add(server)
        for _ in range(FEW):
            self.fetch(server, listed=listed)

    def later(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def sea() -> Sea:
    return Sea()


def test_a_server_is_away_once_a_few_tracks_in_a_row_have_failed_on_it(sea: Sea) -> None:
    sea.down = {STORE}
    assert [sea.fetch(STORE) for _ in range(FEW)] == ["failed"] * (FEW - 1) + ["waits"]
    assert [sea.fetch(STORE) for _ in range(5)] == ["waits at once"] * 5
    assert len(sea.asked) == FEW


def test_one_track_that_fails_again_and_again_is_not_a_few(sea: Sea) -> None:
    sea.down = {STORE}
    assert {sea.fetch(STORE, track="same") for _ in range(10)} == {"failed"}


def test_an_answer_in_between_begins_the_count_anew(sea: Sea) -> None:
    for _ in range(5):
        sea.down = {STORE}
        assert {sea.fetch(STORE) for _ in range(FEW - 1)} == {"failed"}
        sea.down = set()
        assert sea.fetch(STORE) == "heard"


def test_one_track_at_a_time_asks_a_server_that_is_away_less_and_less_often(sea: Sea) -> None:
    sea.fail(STORE)
    sea.asked.clear()
    times = []
    for _ in range(1000):
        sea.later(0.1)
        if sea.fetch(STORE) == "waits":
            times.append(sea.now)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[:3] == pytest.approx([2, 4, 8], abs=0.2)
    assert gaps[3:] == pytest.approx([LONGEST_WAIT_S] * len(gaps[3:]), abs=0.2)
    sea.later(LONGEST_WAIT_S)
    with sea.breaker.visit("asks") as visit:
        visit.reach(STORE, listed=False)
        assert visit.asks == {STORE}
        assert sea.fetch(STORE) == "waits at once"
    assert sea.fetch(STORE) == "waits"  # what was cancelled leaves the question to the next


def test_its_first_answer_ends_it(sea: Sea) -> None:
    sea.fail(STORE)
    sea.down.clear()
    assert sea.fetch(STORE) == "waits at once"
    sea.later(1)
    assert [sea.fetch(STORE) for _ in range(3)] == ["heard"] * 3
    sea.down = {STORE}
    assert sea.fetch(STORE) == "failed"


@pytest.mark.parametrize(("listed", "patience_s"), [(False, PATIENCE_S), (True, LISTED_PATIENCE_S)])
def test_while_others_answer_its_tracks_wait_for_a_while_and_then_fail_at_once(
    listed: bool, patience_s: float, sea: Sea
) -> None:
    sea.fail(STORE, listed=listed)
    assert [sea.fetch(OTHER) for _ in range(3)] == ["heard"] * 3
    sea.later(patience_s)
    assert [sea.fetch(STORE, listed=listed) for _ in range(3)] == ["waits", "waits at once", "waits at once"]
    sea.later(1)
    assert [sea.fetch(STORE, listed=listed) for _ in range(300)] == ["failed at once"] * 300
    assert sea.fetch(OTHER) == "heard"
    sea.later(LONGEST_WAIT_S)
    sea.down.clear()  # it is asked as before, and comes back
    assert [sea.fetch(STORE, listed=listed) for _ in range(3)] == ["heard"] * 3


def test_where_no_other_is_asked_its_tracks_fail_one_by_one_so_that_those_behind_them_get_their_turn(sea: Sea) -> None:
    sea.fail(STORE)
    for _ in range(int(PATIENCE_S)):
        sea.later(1)
        assert sea.fetch(STORE).startswith("waits")
    outcomes = []
    for _ in range(600):
        sea.later(0.1)
        outcomes.append(sea.fetch(STORE))
    assert 5 <= outcomes.count("failed") <= 7
    assert outcomes.count("failed") + outcomes.count("waits") + outcomes.count("waits at once") == 600
    assert sea.fetch(OTHER) == "heard"
    assert sea.fetch(STORE) == "failed at once"


def test_the_tracks_of_a_listed_server_wait_as_long_as_it_takes_where_nobody_else_is_well(sea: Sea) -> None:
    sea.fail(STORE, listed=True)
    outcomes = set()
    for _ in range(1000):
        sea.later(LONGEST_WAIT_S)
        outcomes |= {sea.fetch(STORE, listed=True), sea.fetch(STORE, listed=True)}
    assert outcomes == {"waits", "waits at once"}
    sea.down.clear()
    sea.later(LONGEST_WAIT_S)
    assert sea.fetch(STORE, listed=True) == "heard"


def test_but_not_where_another_was_well_and_may_stand_behind_them(sea: Sea) -> None:
    assert sea.fetch(OTHER) == "heard"
    sea.later(1)
    sea.fail(STORE, listed=True)
    sea.later(LISTED_PATIENCE_S + 1)
    assert [sea.fetch(STORE, listed=True) for _ in range(2)] == ["failed", "waits at once"]
    sea.down.add(OTHER)  # and it turns out that it is not
    assert sea.fetch(OTHER, listed=True) == "waits"
    sea.later(LONGEST_WAIT_S)
    assert sea.fetch(STORE, listed=True) == "waits"


def test_where_nobody_answers_each_server_is_away_from_its_first_failure_on(sea: Sea) -> None:
    hosts = [f"https://{number}.example" for number in range(50)]
    assert {sea.fetch(host) for host in hosts} == {"heard"}
    sea.down.update(hosts)
    assert [sea.fetch(host) for host in hosts] == ["failed"] * (FEW - 1) + ["waits"] * (50 - FEW + 1)
    sea.down.clear()
    sea.later(1)
    assert {sea.fetch(host) for host in hosts} == {"heard"}
    sea.down.add(hosts[0])
    assert sea.fetch(hosts[0]) == "failed"


def test_what_strangers_name_takes_no_memory_for_ever(sea: Sea) -> None:
    sea.down = {f"https://{number}.example" for number in range(5000)}
    for host in sorted(sea.down):
        sea.fetch(host)
    assert len(sea.breaker._servers) <= 1000


# --- with a Fetcher


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fetcher(clock: Clock) -> Callable[..., Fetcher]:
    """Makes Fetchers that share what they know of the servers."""
    breaker = Breaker(monotonic=clock)

    def make(resolver: Resolver | None = None, **settings: object) -> Fetcher:
        return Fetcher(
            load_settings(**settings).fetch,
            resolver=resolver or Resolver(music_example=[PUBLIC], cdn_example=[PUBLIC]),
            is_public=lambda address: address == PUBLIC or is_public(address),
            breaker=breaker,
            backoff_s=0.001,
        )

    return make


async def outcomes(fetch: Fetcher, uris: list[str]) -> list[str]:
    names = []
    for uri in uris:
        try:
            with await fetch.fetch(uri) as fetched:
                assert checked(fetched) == AUDIO
            names.append("heard")
        except (HostAway, FetchFailed, NotFound) as error:
            names.append(type(error).__name__)
    return names


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(AUDIO))})
    await response.prepare(request)
    await response.write(AUDIO[:1000])
    request.transport.close()
    return response


AWAY = ["FetchFailed"] * (FEW - 1) + ["HostAway"] * 3


@pytest.mark.parametrize("trouble", [reply(503), reply(429), half, silent], ids=["503", "429", "half", "silent"])
async def test_a_web_server_is_away_and_asked_once_in_a_while(
    trouble: Callable, public: Site, clock: Clock, fetcher: Callable[..., Fetcher]
) -> None:
    public.answers = {"*": [trouble]}
    uris = [f"http://music.example:{public.port}/{number}?token=secret" for number in range(len(AWAY))]
    async with fetcher(**({"fetch_timeout_s": 0.4} if trouble is silent else {})) as fetch:
        assert await outcomes(fetch, uris) == AWAY
        with pytest.raises(HostAway, match=f"http://music.example:{public.port} is away") as caught:
            await fetch.fetch(uris[0])
        assert "secret" not in str(caught.value)
        public.requests.clear()
        clock.now += 1
        assert await outcomes(fetch, uris[:2]) == ["HostAway"] * 2
        assert len(public.requests) == 1  # a server that is away is not asked four times
    public.answers = {"*": [audio]}
    clock.now += 2
    async with fetcher() as fetch:
        assert await outcomes(fetch, uris) == ["heard"] * len(uris)


async def test_what_a_server_says_about_a_track_is_an_answer(public: Site, fetcher: Callable[..., Fetcher]) -> None:
    public.answers = {"/404": [reply(404)], "/403": [reply(403)], "*": [reply(500)]}
    origin = f"http://music.example:{public.port}"
    async with fetcher() as fetch:
        for path in ("404", "403"):
            for number in range(3):
                assert await outcomes(fetch, [f"{origin}/{number}", f"{origin}/{number}x"]) == ["FetchFailed"] * 2
                await outcomes(fetch, [f"{origin}/{path}"])


async def test_what_is_refused_is_no_answer(public: Site, fetcher: Callable[..., Fetcher]) -> None:
    public.answers = {"*": [reply(503)]}
    async with fetcher(file_roots="/srv", allowed_buckets="nosuchscheme://music") as fetch:
        for number, expected in enumerate(AWAY):
            assert await outcomes(fetch, [f"http://music.example:{public.port}/{number}"]) == [expected]
            for refused in ("file:///etc/passwd", "file:///srv/../etc/passwd", "nosuchscheme://music/a", "ftp://x/a"):
                with pytest.raises(FetchRefused):
                    await fetch.fetch(refused)


async def test_behind_a_redirect_the_server_that_fails_is_away_and_not_the_one_that_answers(
    public: Site, fetcher: Callable[..., Fetcher]
) -> None:
    origin, cdn = f"http://music.example:{public.port}", f"http://cdn.example:{public.port}"
    public.answers = {f"/{number}": [redirect(f"{cdn}/x{number}")] for number in range(9)} | {"*": [reply(503)]}
    public.answers["/a.mp3"] = [audio]
    async with fetcher() as fetch:
        assert await outcomes(fetch, [f"{origin}/{number}" for number in range(len(AWAY))]) == AWAY
        assert await outcomes(fetch, [f"{origin}/a.mp3", f"{origin}/0"]) == ["heard", "HostAway"]


async def test_a_host_that_refuses_connections_is_away_and_others_are_not(
    public: Site, clock: Clock, fetcher: Callable[..., Fetcher]
) -> None:
    closed = Site(PUBLIC)
    await closed.start()
    await closed.runner.cleanup()
    gone = [f"http://cdn.example:{closed.port}/{number}" for number in range(len(AWAY))]
    good = f"http://music.example:{public.port}/a.mp3"
    async with fetcher() as fetch:
        assert await outcomes(fetch, gone) == AWAY
        assert await outcomes(fetch, [good] * 3) == ["heard"] * 3
        clock.now += PATIENCE_S + 1
        assert await outcomes(fetch, [*gone, good]) == ["FetchFailed"] * len(gone) + ["heard"]


async def test_name_servers_that_are_away_are_so_for_all_hosts(
    public: Site, clock: Clock, fetcher: Callable[..., Fetcher]
) -> None:
    away = socket.gaierror(socket.EAI_AGAIN, "again")
    resolver = Resolver(**{f"h{number}_example": [away] for number in range(len(AWAY))})
    uris = [f"http://h{number}.example:{public.port}/a.mp3" for number in range(len(AWAY))]
    async with fetcher(resolver) as fetch:
        assert await outcomes(fetch, uris) == AWAY
        resolver.answers = {host: [PUBLIC] for host in resolver.answers}
        clock.now += 1
        assert await outcomes(fetch, uris) == ["heard"] * len(uris)


class NoCredentialsError(Exception):
    """Named as botocore's."""


@pytest.mark.parametrize("error", [OSError("reset"), ConnectionRefusedError(), NoCredentialsError()])
async def test_an_object_store_that_is_away_loses_no_track_however_long(
    error: Exception, bucket: str, clock: Clock, fetcher: Callable[..., Fetcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(fsspec.filesystem("memory"))
    plain_open, uris = kind.open, [f"{bucket}/{number}" for number in range(len(AWAY))]
    fsspec.filesystem("memory").pipe({f"/music/{number}": AUDIO for number in range(len(AWAY))})

    def failing(self: object, *arguments: object, **options: object) -> object:
        raise error

    monkeypatch.setattr(kind, "open", failing)
    async with fetcher(allowed_buckets=bucket, fetch_attempts=2) as fetch:
        assert await outcomes(fetch, uris) == AWAY
        for _ in range(20):
            clock.now += LISTED_PATIENCE_S
            assert await outcomes(fetch, uris) == ["HostAway"] * len(uris)
        monkeypatch.setattr(kind, "open", plain_open)
        clock.now += LONGEST_WAIT_S
        assert await outcomes(fetch, uris) == ["heard"] * len(uris)


async def test_a_cancelled_question_is_asked_by_the_next(
    public: Site, clock: Clock, fetcher: Callable[..., Fetcher]
) -> None:
    asked = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await silent(request)

    public.answers = {"*": [reply(503)]}
    uris = [f"http://music.example:{public.port}/{number}" for number in range(len(AWAY))]
    async with fetcher(fetch_attempts=1) as fetch:
        assert await outcomes(fetch, uris) == AWAY
        public.answers = {"*": [hang, audio]}
        clock.now += 1
        question = asyncio.create_task(fetch.fetch(uris[0]))
        await asked.wait()
        assert await outcomes(fetch, uris[1:2]) == ["HostAway"]
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        assert await outcomes(fetch, uris) == ["heard"] * len(uris)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT])
async def test_a_folder_whose_file_system_is_away_loses_no_track_and_holds_up_no_other(
    number: int, tmp_path: Path, clock: Clock, fetcher: Callable[..., Fetcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [tmp_path / "mounted", tmp_path / "local"]
    uris = [[(root / f"{number}.mp3").as_uri() for number in range(len(AWAY))] for root in roots]
    for root in roots:
        root.mkdir()
        for place in range(len(AWAY)):
            (root / f"{place}.mp3").write_bytes(AUDIO)
    plain_open = os.open

    def failing(path: object, *arguments: object, **options: object) -> int:
        if os.fsdecode(path).startswith(str(roots[0])):
            raise OSError(number, os.strerror(number))
        return plain_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", failing)
    async with fetcher(file_roots=",".join(map(str, roots)), fetch_attempts=2) as fetch:
        assert await outcomes(fetch, uris[0]) == AWAY
        assert await outcomes(fetch, uris[1]) == ["heard"] * len(AWAY)
        monkeypatch.setattr(os, "open", plain_open)
        clock.now += 1
        assert await outcomes(fetch, uris[0]) == ["heard"] * len(AWAY)


async def test_a_folder_that_is_not_mounted_yet_is_waited_for(
    tmp_path: Path, clock: Clock, fetcher: Callable[..., Fetcher]
) -> None:
    root = tmp_path / "mounted"
    uris = [(root / f"{number}.mp3").as_uri() for number in range(len(AWAY))]
    async with fetcher(file_roots=str(root)) as fetch:
        assert await outcomes(fetch, uris) == AWAY
        root.mkdir()
        (root / "0.mp3").write_bytes(AUDIO)
        clock.now += 1
        assert await outcomes(fetch, uris[:2]) == ["heard", "NotFound"]


async def test_a_folder_that_hangs_holds_up_no_other_work(
    public: Site, fetcher: Callable[..., Fetcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr("stream.audio.gates.open_inside", lambda *_, **__: released.wait() and None)
    async with fetcher(file_roots="/srv", fetch_timeout_s=3) as fetch:
        hanging = [fetch.fetch(f"file:///srv/{number}.mp3") for number in range(100)]
        ended = await asyncio.gather(*hanging, return_exceptions=True)
        assert {type(error) for error in ended} == {FetchFailed, HostAway}
        assert await outcomes(fetch, [f"http://music.example:{public.port}/a.mp3"]) == ["heard"]
    released.set()
