"""What Prometheus and Grafana read, and what makes some of it from the code."""
