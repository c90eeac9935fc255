"""Pure maths on arrays: products, likelihoods, losses, pixel orders, masks, windows."""
