"""What we know about a lead: leads, conversations and history behind gRPC."""
