"""Data sets and where their images come from. Torch is imported only where torchvision reads CIFAR's own files.

`datasets` opens a data set by its name: from `cifar`, `folders` or `lists` on disk, or from the embedded `glyphs`.
`coarse`, `orders`, `names` and `synsets` hold published facts, such as CIFAR-20's classes and class orders.
"""
