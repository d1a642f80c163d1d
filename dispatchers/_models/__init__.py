"""Values that cross a boundary: requests, responses, outcomes, options."""
