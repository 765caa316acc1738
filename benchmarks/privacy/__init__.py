"""What published counts give away, and what protecting them costs the gate."""
