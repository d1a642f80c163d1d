"""Hand work over to whatever queue a deployment has."""
