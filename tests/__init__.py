"""The tests of ringdist: one file per topic, every oracle in plain NumPy, every test over every backend."""
