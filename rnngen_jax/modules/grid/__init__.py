"""Causal networks over an image's pixels, evaluated in parallel or pixel by pixel.

A layer is a Flax module with these two evaluations, which give the same results. Maps are
`[H, W, B, D]` as in `ops.grids`; `above` is a second map, in which a pixel may see its own
position, for layers with a separate map of the rows above (`GatedConv`), and `None` for all others.

    layer(above, x)              -> above, x          whole maps
    layer.first(batch)           -> state             before the first row
    layer.row(state, above)      -> state, above      before a row, `[W, B, D]`
    layer.pixel(state, x, column) -> state, x         a pixel of that row, `[B, D]`

`pixel` may be called again for the same pixel, with more of its channels known.
"""
