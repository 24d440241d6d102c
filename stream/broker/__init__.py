"""Kafka: batches that are committed when they are done, what agents publish, what operators ask."""
