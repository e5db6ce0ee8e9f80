"""Models that SRP4CTR is compared with."""
