"""Tabular benchmarks: measurements that others have paid for, looked up instead of trained.

``table`` holds the contract of a table and the evaluator over it; ``csv``, ``nasbench101``, ``nasbench201_official``,
``nats``, ``nds`` and ``transnas`` read one file format each, ``nasbench101`` on top of ``tfrecord`` and ``protobuf``. A
table is named with the selection in it: ``csv:PATH#cifar10``, ``nasbench201:PATH#cifar10@mean``,
``nats:PATH#cifar100@777,888+counts``.
"""
