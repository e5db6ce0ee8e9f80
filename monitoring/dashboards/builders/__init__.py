"""Panels, queries and thresholds of Grafana's dashboards."""
