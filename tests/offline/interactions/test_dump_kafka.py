from pathlib import Path

import crc32c
import pytest
from kafka.record import util

from models.errors import SettingsError
from offline.config import load_config
from offline.interactions.dump_kafka import KafkaArguments


def test_arguments_of_the_client_come_from_a_file(tmp_path: Path):
    file = tmp_path / "kafka.toml"
    file.write_text('security_protocol = "SSL"\nsasl_plain_username = "trainer"\nssl_check_hostname = false\n')
    found = load_config(KafkaArguments, toml=file)
    expected = ("SSL", "trainer", False)
    assert (found.security_protocol, found.sasl_plain_username, found.ssl_check_hostname) == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('sasl_plain_user = "trainer"', "no setting 'sasl_plain_user'; did you mean sasl_plain_username"),
        ('sasl_mechanism = "ROT13"', "ROT13"),
        ("sasl_plain_password = 12345678", "Expected `str"),
        ('security_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"', "SASL_SSL needs sasl_plain_username"),
        ('ssl_cafile = "/etc/no-such.pem"', "ssl_cafile /etc/no-such.pem is no file"),
    ],
)
def test_arguments_of_the_client_that_cannot_be_right_are_refused(tmp_path: Path, line: str, says: str):
    (tmp_path / "kafka.toml").write_text(line)
    with pytest.raises(SettingsError, match=says) as caught:
        load_config(KafkaArguments, toml=tmp_path / "kafka.toml")
    assert "12345678" not in str(caught.value)


def test_checksums_of_records_are_computed_in_c():
    assert util.crc32c_c is crc32c.crc32c
    assert util.calc_crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C (RFC 3720, section 12.1)
