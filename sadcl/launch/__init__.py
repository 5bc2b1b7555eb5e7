"""What is looked at before a start, and the start itself."""
