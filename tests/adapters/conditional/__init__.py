MODELS = ["trip", "flow", "cvae", "telbo", "jmvae"]
