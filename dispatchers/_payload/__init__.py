"""Arguments of tasks to JSON and back, exactly."""
