"""Memory-Efficient Incremental Learning Through Feature Adaptation (Iscen, Zhang, Lazebnik, Schmid; ECCV 2020).

Old classes are kept as features, which a small network moves into each new feature space. README.md maps equations to
functions and lists every assumption.
"""
