from aiokafka.partitioner import murmur2
from hypothesis import example, given
from hypothesis import strategies as st

from stream.broker.key_hashes import key_hashes


@given(st.lists(st.binary(max_size=300)))
@example([])
@example([b"", b"\xff" * 7, "release:ü".encode()])
def test_keys_have_the_hashes_of_kafkas_clients(keys):
    assert key_hashes(keys).tolist() == [murmur2(key) & 0xFFFFFFFF for key in keys]
