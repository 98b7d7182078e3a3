"""The Merkle log over the rows: commits, hashes, tiles, proofs, signatures."""
