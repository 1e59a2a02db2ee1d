"""Real images: which files hold them, how they are read, and in which space they are."""
