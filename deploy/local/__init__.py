"""A real Kafka and a real Redis on this machine: for the demo, the integration tests and `make up`.

    with Kafka() as kafka, Redis() as redis:
        ...  # kafka.brokers, redis.url; kill(), pause(), resume(), restart() to hurt them

From the shell: `python -m deploy.local up|status|env|down`.
"""

from deploy.local.kafka_server import Kafka, KafkaCluster
from deploy.local.process import LaunchError, Server
from deploy.local.redis_server import Redis, RedisCluster

__all__ = ["Kafka", "KafkaCluster", "LaunchError", "Redis", "RedisCluster", "Server"]
