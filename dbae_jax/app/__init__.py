"""The app: a page in the browser that uses one trained model."""
