"""An agent whose every model call and tool call is recorded, and survives its process."""
