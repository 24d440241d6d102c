"""Reads tracks and users with redis-py alone: python example.py localhost:6379 track:t1 user:ana"""

import json
import struct
import sys

import redis


def vector(value: bytes | None) -> list[float] | None:
    return None if value is None else list(struct.unpack(f"<{len(value) // 4}f", value))


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def main(address: str, *asked: str) -> None:
    host, port = address.rsplit(":", 1)
    client = redis.Redis(host=host, port=int(port))
    live: dict = client.hgetall("tw:live")  # keep it for a second at most
    release = text(live.get(b"release"))
    pipeline = client.pipeline(transaction=False)
    for one in asked:
        kind, _, name = one.partition(":")
        pipeline.hgetall(f"tw:{release}:{kind}:{{{name}}}")
    for one, fields in zip(asked, pipeline.execute(), strict=True):
        answer = {"asked": one, "known": bool(fields), "embedding": vector(fields.get(b"embedding"))}
        if one.startswith("track:"):
            confidence = fields.get(b"confidence")
            answer["status"] = text(fields.get(b"status"))
            answer["genre"] = text(fields.get(b"genre"))
            answer["confidence"] = None if confidence is None else float(confidence)
        else:
            answer["source"] = text(fields.get(b"source"))
        print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
