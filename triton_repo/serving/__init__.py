"""What runs inside Triton: request → features → states → scores."""
