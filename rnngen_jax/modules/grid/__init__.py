"""Networks over an image's pixels that see the past alone, whole or pixel by pixel.

A layer is a Flax module with two ways through an image, which give the same numbers. Maps are
`[H, W, B, D]` as in `ops.grids`; `above` is a second map, of which a pixel may see its own place,
for layers that keep one of the rows above apart (`gated_conv`), and `None` for all others.

    layer(above, x)              -> above, x          whole maps
    layer.first(batch)           -> state             before the first row
    layer.row(state, above)      -> state, above      before a row, `[W, B, D]`
    layer.pixel(state, x, column) -> state, x         a pixel of that row, `[B, D]`

`pixel` may be called again for the same pixel, with more of its channels known.
"""
