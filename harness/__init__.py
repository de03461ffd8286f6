r"""What ``run.py`` drives: options, training loop, gradient statistics and tracking."""
