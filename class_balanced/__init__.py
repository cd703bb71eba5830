"""Class-Balanced Loss Based on Effective Number of Samples (Cui, Jia, Lin, Song, Belongie; CVPR 2019).

README.md maps equations to functions and lists every deviation.
"""
