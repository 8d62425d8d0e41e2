"""Rings as other libraries and files hold them."""
