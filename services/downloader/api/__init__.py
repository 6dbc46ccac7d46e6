"""The HTTP side: views of the board, events, an operator's word to the controller, health and metrics."""
