"""Where images come from: known data sets, image folders, lists, the embedded glyphs. Nothing here loads torch."""
