"""BBN: Bilateral-Branch Network with Cumulative Learning for Long-Tailed Visual Recognition (Zhou et al., CVPR 2020).

README.md maps equations to functions and lists every deviation.
"""
