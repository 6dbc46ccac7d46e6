"""What makes pages of this folder from the code."""
