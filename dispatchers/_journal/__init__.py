"""The journal of executions: its values, its protocol, and the journals by name."""
