"""The scikit-learn estimator for tables as users have them."""
