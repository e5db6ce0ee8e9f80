"""The HTTP intake: events of producers without a Kafka client."""
