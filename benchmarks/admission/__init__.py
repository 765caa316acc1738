"""What the admission gate lets through, what it refuses, and what it costs."""
