"""Where the bytes of the evidence lie: one seam, a folder of this machine or a bucket."""
