"""The page's files as they are served, and by which names a server on loopback may be called."""

import gzip

from stream.serve.page_files import POLICY, read_page


async def test_the_page_is_served_with_a_policy_that_lets_nothing_in_from_elsewhere(api) -> None:
    told = await api().get("/")
    assert (told.status_code, told.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert told.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "<script" in told.text
    assert "style=" not in told.text
    module = await api().get("/page/app.js")
    assert module.headers["content-type"] == "text/javascript; charset=utf-8"
    assert module.headers["x-content-type-options"] == "nosniff"


async def test_a_file_travels_compressed_and_only_once(api) -> None:
    client = api()
    plain = await client.get("/page/style.css", headers={"Accept-Encoding": "identity"})
    packed = await client.get("/page/style.css")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) == len(packed.content)
    again = await client.get("/page/style.css", headers={"If-None-Match": packed.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", packed.headers["etag"])


async def test_nothing_but_the_files_of_the_page_is_served(api) -> None:
    client = api()
    for path in ("/page/", "/page/nothing.js", "/page/../site.py", "/page/%2e%2e/site.py", "/page//etc/passwd"):
        told = await client.get(path)
        assert told.status_code == 404, path
        assert told.headers["content-type"] == "application/problem+json"


def test_all_of_the_page_is_less_than_150_kilobytes_compressed() -> None:
    files = read_page()
    assert {"index.html", "app.js", "style.css", "icon.svg"} <= files.keys()
    assert sum(len(file.compressed) for file in files.values()) < 150_000
    assert all(gzip.decompress(file.compressed) == file.body for file in files.values())


async def test_on_loopback_a_foreign_name_is_refused(api) -> None:
    client = api()
    for host in ("evil.example", "evil.example:6068", "127.0.0.1.evil.example", "10.0.0.1", "[::2]:1", "::1"):
        for path in ("/", "/v1/release", "/v1/users/ann", "/page/app.js", "/metrics"):
            told = await client.get(path, headers={"Host": host})
            assert (told.status_code, told.json()["type"]) == (421, "urn:tastewave:problem:foreign-host"), (host, path)
    for host in ("127.0.0.1:6068", "localhost", "LOCALHOST:1", "[::1]:6068", "127.9.9.9"):
        assert (await client.get("/", headers={"Host": host})).status_code == 200, host


async def test_at_another_address_any_name_is_answered(api) -> None:
    told = await api(host="0.0.0.0", token="0123456789abcdef").get("/", headers={"Host": "tastewave.example"})
    assert told.status_code == 200
