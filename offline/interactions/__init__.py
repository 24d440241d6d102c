"""Logs of listens: dumped from Kafka, read from Parquet, divided into a training, a validation and a test part."""
