"""What every method has to prove, and what it is proved on. `kit.PROOFS` names them; `benchmark check` runs them."""
