"""Feature Space Augmentation for Long-Tailed Data (Chu, Bian, Liu, Ling; ECCV 2020).

README.md maps equations to functions and lists every deviation.
"""
