"""The base of every dispatcher, and how the contract is kept."""
