"""Many contributors' adapters of one domain become one."""
