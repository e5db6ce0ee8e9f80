"""The periodic refresh: event log → serving bundle."""
