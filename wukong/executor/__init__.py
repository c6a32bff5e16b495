"""What an executor decides (core), what it asks for (effects), and what carries it out (driver, alone)."""
