"""Logs of listens: read from Parquet, divided into training and test, dumped from Kafka."""
