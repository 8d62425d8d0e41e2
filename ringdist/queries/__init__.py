"""Questions to a ring: each quantity has one function here."""
