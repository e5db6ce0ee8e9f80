"""Logs of ``rules_of_thumb``: how they are read and cut, and rules compared with models."""
