"""What gathers facts for the judges: thin, bounded in time, and without an opinion."""
