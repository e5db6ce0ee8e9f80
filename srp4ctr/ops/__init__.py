"""What operators run: start-up, users and rules, promotion, the refresh job, backups."""
