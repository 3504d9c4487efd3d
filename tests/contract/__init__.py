"""What the contract promises, tried method by method and field by field."""
