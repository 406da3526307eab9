"""What messages to users have in common."""
