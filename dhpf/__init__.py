"""Dynamic Hyperpixel Flow: which point of one image is which point of another."""
