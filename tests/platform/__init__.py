"""What integration tests share: a music platform around the real servers, hostile files, malformed events."""
