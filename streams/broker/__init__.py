"""Kafka: clients, topics, producers, consumers, dead letters and operator commands."""
