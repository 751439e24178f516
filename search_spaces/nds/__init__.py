"""The design spaces of NDS: ``space`` declares them, ``cells`` and ``stages`` build their networks."""
