"""Flower's processes: started, guarded, stopped."""
