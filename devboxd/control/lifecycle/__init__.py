"""The wing that keeps boxes: launch, save, release."""
