"""Grafana's dashboards, and the questions that they are made from."""
