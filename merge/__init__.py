"""Many experts → one model: compatibility plan, assembling, adding, removing, loading."""
