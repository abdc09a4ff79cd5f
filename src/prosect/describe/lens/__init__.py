"""Reading the stream into logits before the last layer, and splitting a logit into its direct parts."""
