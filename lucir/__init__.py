"""Learning a Unified Classifier Incrementally via Rebalancing (Hou, Pan, Loy, Wang, Lin; CVPR 2019).

With its iCaRL and joint baselines. README.md maps equations to functions and lists every deviation.
"""
