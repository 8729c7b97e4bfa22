"""Other trackers' words, spoken to Tracer: change one import, or none with `tracer run --replace`.

    import tracer.compat.wandb as wandb
    import tracer.compat.mlflow as mlflow

What these do not offer says so when it is used; nothing is sent anywhere.
"""
