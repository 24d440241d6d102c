import io
import socket

import av
import numpy as np
import pytest

from models.audio import ffmpeg as ffmpeg_reader
from models.errors import NotAudio
from tests.models.audio.music_files import ffmpeg, music, windows_of
from tests.platform.hostile_audio.inputs import patched, unharmed


def test_a_film_without_sound_is_not_audio():
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as writer:
        pictures = writer.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
        writer.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        writer.mux(pictures.encode(None))
    with pytest.raises(NotAudio, match="no audio"):
        windows_of(out.getvalue())


def test_the_length_of_a_live_webm_is_counted():
    data = bytearray(ffmpeg(music(21, 48000), "webm", "libopus", 48000))
    duration = data.index(b"\x44\x89\x88")  # the element of the duration
    data[duration : duration + 3] = b"\xec\x81\x00"[:1] + b"\x89\x00"  # a void one of the same size
    heard = windows_of(bytes(data))
    assert heard.duration_s == pytest.approx(21, abs=0.1)
    assert heard.starts_ms == (1000, 8000, 15000)


def test_the_length_in_an_mp4_header_is_not_believed():
    data = bytearray(ffmpeg(music(21), "ipod", "aac"))
    stated = data.index(b"mdhd") + 4 + 16  # after version, two dates and the time scale
    assert int.from_bytes(data[stated : stated + 4]) == pytest.approx(21 * 44100, abs=4096)
    data[stated : stated + 4] = (7 * 44100).to_bytes(4)
    heard = windows_of(bytes(data))
    assert heard.duration_s == pytest.approx(21, abs=0.1)
    assert heard.starts_ms == (1000, 8000, 15000)


def test_text_in_no_known_encoding_is_no_obstacle():
    data = ffmpeg(music(5), "ipod", "aac", metadata={"title": "PLACEHOLDER"})
    assert b"PLACEHOLDER" in data
    assert windows_of(data.replace(b"PLACEHOLDER", b"\xff\xfe\x80\xe4\xf6\xfc\xff\xff\xff\xff\xff"))


def test_a_wma_file_that_points_beyond_every_file_is_not_audio_and_prints_nothing(tmp_path, capfd):
    path = tmp_path / "a.wma"
    # an object of unknown name, and the size of what FFmpeg skips
    path.write_bytes(patched(unharmed("wma"), bytes.fromhex("a1dcab8c47a9cf118ee400c0"), 14, b"\xff" * 7 + b"\x7f"))
    with pytest.raises(NotAudio):
        windows_of(path)
    assert capfd.readouterr().err == ""


class TestPlaylists:
    """FFmpeg opens what a playlist names; here it must not."""

    @pytest.fixture
    def canary(self, tmp_path):
        """Playlists that name a local file and a listener, and a function that tells whether the listener was asked."""
        target = tmp_path / "target.aac"
        target.write_bytes(ffmpeg(music(5), "adts", "aac"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            port = listener.getsockname()[1]
            address = f"http://127.0.0.1:{port}/a.aac"
            head, tail = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n", "\n#EXT-X-ENDLIST\n"
            playlists = {
                "hls-file": f"{head}file://{target}{tail}",
                "hls-path": f"{head}{target}{tail}",
                "hls-http": f"{head}{address}{tail}",
                "concat": f"ffconcat version 1.0\nfile '{target}'\n",
                "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
            }

            def was_asked():
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    return False
                return True

            yield playlists, was_asked

    def test_ffmpeg_on_its_own_opens_what_a_playlist_names(self, canary):
        playlists, _ = canary
        file = io.BytesIO(playlists["hls-file"].encode())
        file.name = "a.m3u8"
        with av.open(file) as container:
            assert container.format.name == "hls"
            assert next(container.decode(audio=0)).samples

    @pytest.mark.parametrize("ending", ["mp3", "m3u8", "m4a"])
    @pytest.mark.parametrize("kind", ["hls-file", "hls-path", "hls-http", "concat", "sdp"])
    def test_nothing_that_a_playlist_names_is_opened(self, canary, tmp_path, kind, ending):
        playlists, was_asked = canary
        path = tmp_path / f"track.{ending}"
        path.write_text(playlists[kind])
        with pytest.raises(NotAudio):
            windows_of(path)
        with path.open("rb") as file, pytest.raises(NotAudio):
            windows_of(file)
        assert not was_asked()

    @pytest.mark.parametrize("guards", [("format_whitelist",), ("protocol_whitelist",)])
    @pytest.mark.parametrize("kind", ["hls-file", "hls-path", "hls-http", "concat"])
    def test_each_guard_is_enough(self, canary, monkeypatch, kind, guards):
        playlists, was_asked = canary
        loose = {"allowed_extensions": "ALL", "extension_picky": "0", "safe": "0"}
        file = io.BytesIO(playlists[kind].encode())
        file.name = "a.m3u8"
        with pytest.raises(av.FFmpegError):
            av.open(file, options=loose | {guard: ffmpeg_reader._OPTIONS[guard] for guard in guards})
        assert not was_asked()
