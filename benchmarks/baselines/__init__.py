"""Models that SRP4CTR is compared with; each is trained and judged as it is."""
