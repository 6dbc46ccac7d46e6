"""The dashboards, in the order in which Grafana lists them."""

from monitoring.grafana.miners import MINERS
from monitoring.grafana.question import Board
from monitoring.grafana.stack import STACK
from monitoring.grafana.supply import SUPPLY

__all__ = ["BOARDS", "Board"]

BOARDS = (SUPPLY, MINERS, STACK)
