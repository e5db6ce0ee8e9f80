"""Operators' commands: start-up, permissions, promotion, refreshes, checks, backups."""
