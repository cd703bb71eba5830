"""Where images come from. Nothing here loads torch.

`datasets` opens a data set by its name. It finds one in `folders` or `lists` on disk, or draws the embedded `glyphs`;
`coarse` and `orders` hold published facts: CIFAR-20's classes, and class orders.
"""
