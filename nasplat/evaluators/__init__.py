"""Evaluators: zero-cost proxies, trainings of networks and of supernets; ``ByProposal`` puts them behind one seam."""
