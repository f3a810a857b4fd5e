"""Training in two stages, on Lightning (extra ``train``)."""
