//! The whole cluster in one process under a seed.
