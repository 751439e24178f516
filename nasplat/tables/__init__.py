"""Tabular benchmarks: measurements that others have paid for, looked up instead of trained.

``table`` holds the contract of a table and the evaluator over it; ``csv``, ``nasbench201_official`` and
``nats`` read one file format each. A table is named with the selection in it: ``csv:PATH#cifar10``,
``nasbench201:PATH#cifar10@mean``, ``nats:PATH#cifar100@777,888+counts``.
"""
