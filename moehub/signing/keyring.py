"""The publishers' keys that are trusted on this machine."""


class Keyring:
    """Which key may sign for which publisher."""
