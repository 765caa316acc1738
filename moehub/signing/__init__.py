"""Who published an expert: keys, signatures over every file, and which keys are trusted here."""
