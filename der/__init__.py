"""DER: Dynamically Expandable Representation for Class Incremental Learning (Yan, Xie, He; CVPR 2021).

With its masks and pruning, and the joint, WA and BiC baselines. README.md maps equations to functions and lists every
deviation. Not Dark Experience Replay, which shares the abbreviation.
"""
