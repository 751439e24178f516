"""Trials on a Ray cluster: the executor, its connection, the actor that keeps a worker, and what its child runs.

``executor``, ``pace`` and ``cluster`` are the driver's and import Ray; ``supervisor`` and ``batch`` run on the cluster.
"""
