"""Pure maths: likelihoods of pixels, orders of pixels, masks."""
