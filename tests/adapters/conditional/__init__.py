MODELS = ["trip", "flow", "conditional", "cvae", "telbo", "jmvae"]
