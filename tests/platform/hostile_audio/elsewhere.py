"""Playlists and containers that point at another file or address."""

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.platform.hostile_audio.canary import Target
from tests.platform.hostile_audio.containers import atom, element, id3, matroska, replaced
from tests.platform.hostile_audio.inputs import DAMAGED, HEARD, NOT_AUDIO, Hostile, unharmed


def playlists(target: Target) -> Iterator[Hostile]:
    """Texts that name a file or an address, each under its own suffix and as .mp3."""
    places = {"path": str(target.path), "file": target.path.as_uri(), "http": target.url}
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n{}\n#EXT-X-ENDLIST\n"
    forms = {
        "m3u": "#EXTM3U\n#EXTINF:5,a\n{}\n",
        "m3u8": hls.format("#EXTINF:10,\n{}"),
        "m3u8-variants": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n",
        "m3u8-key": hls.format('#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF:10,\nsegment.ts'),
        "m3u8-map": hls.format('#EXT-X-MAP:URI="{}"\n#EXTINF:10,\nsegment.m4s'),
        "m3u8-part": hls.format("#EXT-X-BYTERANGE:1000@0\n#EXTINF:10,\n{}"),
        "m3u8-concat": hls.format("#EXTINF:10,\nconcat:{0}|{0}"),
        "pls": "[playlist]\nFile1={}\nNumberOfEntries=1\nVersion=2\n",
        "asx": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
        "asx-old": "[Reference]\r\nRef1={0}\r\nRef2={0}\r\n",
        "xspf": '<playlist xmlns="http://xspf.org/ns/0/"><trackList><track><location>{}</location></track></trackList></playlist>',
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="audio/aac"><Representation id="1" '
        'bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "entity": '<?xml version="1.0"?><!DOCTYPE MPD [<!ENTITY a SYSTEM "{}">]><MPD><Period>&a;</Period></MPD>',
        "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
        "smil": '<smil><body><audio src="{}"/></body></smil>',
        "wpl": '<?wpl version="1.0"?><smil><body><seq><media src="{}"/></seq></body></smil>',
        "cue": 'FILE "{}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "imf": '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{}</Id></CompositionPlaylist>',
        "script": 'AviSource("{}")\n',
    }
    for form, text in forms.items():
        for kind, place in places.items():
            for ending in ("mp3", form.partition("-")[0]):
                yield Hostile("playlists", f"{form}-{kind}.{ending}", text.format(place).encode, NOT_AUDIO)
    session = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {target.port} RTP/AVP 0\n"
    one_liners = {
        "session": session,
        "relative": hls.format(f"#EXTINF:10,\n../{target.path.parent.name}/{target.path.name}"),
        "concat": f"concat:{target.path}|{target.path}",
        "concatf": f"concatf:{target.path}",
        "subfile": f"subfile,,start,0,end,9999,,:{target.path}",
        "crypto": f"crypto+file:{target.path}",
        "cache": f"cache:{target.url}",
        "async": f"async:{target.url}",
        "data": "data:audio/wav;base64,UklGRiQAAABXQVZFZm10IBAAAAABAAEA",
        "hls": f"hls+{target.url}",
        "tcp": f"tcp://127.0.0.1:{target.port}",
        "udp": f"udp://127.0.0.1:{target.port}",
        "rtmp": f"rtmp://127.0.0.1:{target.port}/live",
        "rtsp": f"rtsp://127.0.0.1:{target.port}/live",
        "pipe": "pipe:0",
        "lavfi": "sine=frequency=440:duration=9",
        "lavfi-film": f"amovie={target.path}",
        "metadata": f";FFMETADATA1\ntitle=a\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=9\nfile={target.path}\n",
        "device": "/dev/zero",
    }
    for form, text in one_liners.items():
        yield Hostile("playlists", f"{form}.mp3", text.encode, NOT_AUDIO)
    tagged_list = partial(id3, (hls.format(f"#EXTINF:10,\n{target.path}")).encode())
    yield Hostile("playlists", "m3u8-in-a-tag.mp3", tagged_list, NOT_AUDIO)


def references(target: Target) -> Iterator[Hostile]:
    """Containers that say that their audio is in another file."""
    for name, entry in {
        "url": atom(b"url ", bytes(4) + target.url.encode() + b"\0"),
        "file-url": atom(b"url ", bytes(4) + target.path.as_uri().encode() + b"\0"),
        "urn": atom(b"urn ", bytes(4) + b"a\0" + target.path.as_uri().encode() + b"\0"),
        "alias": _alias(target.path),
    }.items():
        yield Hostile("references", f"reference-{name}.m4a", partial(_with_data_reference, entry), DAMAGED)
    location = atom(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(target.url) + 1) + target.url.encode() + b"\0")
    movie = atom(b"ftyp", b"qt  \0\0\0\0qt  ") + atom(b"moov", atom(b"rmra", atom(b"rmda", location)))
    yield Hostile("references", "reference-movie.m4a", partial(bytes, movie), NOT_AUDIO)
    url, path = target.url, str(target.path)
    links = element("3c83ab", path) + element("3e83bb", url) + element("3eb923", bytes(16))
    yield Hostile("references", "linked-segments.mka", partial(matroska, in_info=links), HEARD)
    for name, place in (("path", path), ("url", url)):
        attached = element("466e", place) + element("4660", "audio/aac") + element("46ae", 1) + element("465c", place)
        attachments = element("1941a469", element("61a7", attached))
        yield Hostile("references", f"attachment-{name}.mka", partial(matroska, in_segment=attachments), HEARD)
    chapter = element("b6", element("73c4", 1) + element("91", 0) + element("6e67", bytes(16)))
    chapters = element("1043a770", element("45b9", element("45dd", 1) + chapter))
    yield Hostile("references", "ordered-chapters.mka", partial(matroska, in_segment=chapters), HEARD)


def _alias(path: Path) -> bytes:
    """An alias record of the Macintosh, as FFmpeg reads it."""
    there = str(path).replace("/", ":").encode()
    there += b"\0" * (len(there) % 2)
    head = bytes(10) + b"\0" * 28 + bytes(12) + b"\0" * 64 + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    return atom(b"alis", bytes(4) + head + struct.pack(">hH", 2, len(there)) + there + struct.pack(">hH", -1, 0))


def _with_data_reference(entry: bytes) -> bytes:
    return replaced(unharmed("m4a"), (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), b"url ", entry)
